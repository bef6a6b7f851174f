"""Command ``lossd score``: loss, perplexity, accuracy and worst elements of logits in a file."""

from __future__ import annotations

import glob
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

from kernels import InvalidInput
from service.bulk.terms import OPTIONS
from service.cli import bulk, fail, parameters, reports, score_text
from service.cli.bulk_options import Asked
from service.cli.files import SCORED, read
from service.cli.scoring import score
from service.codecs.json.values import speakable
from service.codecs.missing import listed
from service.errors import DecodeError, InvalidOption
from service.options import CrossEntropyOptions, ReportOptions
from service.process import openmp
from service.request.given import combine

# Seconds before a progress bar is shown.
_PATIENCE = 1.0
# Shown first, as a dtype or an option that was never used before takes up to 15 s to compile.
_COMPILING = "compiling kernels"


def command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="One .npz or .safetensors file with `logits`, `labels` and maybe `weight`,"
            " `sample_weight`, `mask` and `segments`; or two .npy files: logits, labels. Or many"
            " shards: files of these formats, .parquet, .zarr and .hdf5, folders, patterns such as"
            " `'shards/*.npz'`, and URLs such as `s3://bucket/shards/*.safetensors`.",
        ),
    ],
    worst: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="<int>",
            help="How many of the worst elements to list: by default 5, and 20 in a report.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON on stdout, for machines.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help=f"Write a report: {reports.WRITTEN}."),
    ] = None,
    bins: Annotated[
        str | None, typer.Option(metavar="<int>", help="Calibration bins of the report, 15.")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(metavar="<str>", help="In the report: image, sequence, flat, or auto."),
    ] = None,
    **given: str | None,
) -> None:
    """Print the loss of the logits in files, and where it is worst.

    The loss is the mean that the service answers with for the same tensors and options; options
    of a .safetensors file's metadata count as well. With `--report` it is the report's numbers that
    are printed.

    Of many shards, the loss is that of all their rows in order, to the same bits however they are
    cut and wherever they are scored. The status is 5 if some of it could not be scored, and 130
    after Ctrl-C.
    """
    os.environ.setdefault(openmp.VARIABLE, openmp.ASLEEP)
    kind = None if out is None else reports.suffix(out)
    query = {name: str(value) for name, value in given.items() if value is not None}
    shards = {name: query.pop(name) for name in Asked.model_fields if name in query}
    try:
        if shards or _are_shards(files):
            if kind is None:
                _refuse(bins=bins, layout=layout)
            else:
                more = {"worst": worst, "bins": bins, "layout": layout}
                query |= {name: str(value) for name, value in more.items() if value is not None}
            bulk.score_shards(files, shards, query, 5 if worst is None else worst, out, as_json)
            return
        message = read([Path(file) for file in files])
        if message.others:
            only = ", ".join(SCORED)
            typer.echo(f"only {only} count; passed over: {listed(message.others)}", err=True)
        if kind is not None:
            more = {"worst": worst, "bins": bins, "layout": layout}
            query |= {name: str(value) for name, value in more.items() if value is not None}
            asked = combine(ReportOptions, query, message.options, typed=False)
            with _progress() as advance:
                report, maps = reports.computed(message.tensors, asked, advance)
        else:
            _refuse(bins=bins, layout=layout)
            chosen = combine(CrossEntropyOptions, query, message.options, typed=False)
            with _progress() as advance:
                result = score(message.tensors, chosen, 5 if worst is None else worst, advance)
    except (DecodeError, InvalidInput, InvalidOption) as error:
        raise fail(_as_options(error.message)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise fail(f"{where}{error.strerror or error}") from None
    except MemoryError:
        raise fail("the tensors are larger than the memory") from None
    if out is not None:
        reports.write(out, report, maps, Path(files[0]).name)
        typer.echo(reports.summary(report, as_json))
    elif as_json:
        typer.echo(json.dumps(speakable(asdict(result)), allow_nan=False))
    else:
        score_text.show(asdict(result))


def _are_shards(files: Sequence[str]) -> bool:
    """Tell whether ``files`` are more, or others, than one file as the service's bodies are."""
    kinds = [Path(file).suffix.lower() for file in files]
    if len(files) == 1 and kinds[0] in (".npz", ".safetensors", ".npy"):
        return "://" in files[0] or (glob.has_magic(files[0]) and not os.path.lexists(files[0]))
    return kinds != [".npy", ".npy"]


def _refuse(**given: str | None) -> None:
    for name, value in given.items():
        if value is not None:
            raise fail(f"{parameters.option(name)} is for a report: give --report as well")


@contextmanager
def _progress() -> Iterator[Callable[[float], object]]:
    """Show a progress bar on stderr after ``_PATIENCE``, if that is a terminal."""
    console = Console(stderr=True)
    columns = SpinnerColumn(), *Progress.get_default_columns(), TimeElapsedColumn()
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task(_COMPILING, total=1.0)
    started = threading.Event()

    def start() -> None:
        started.set()
        progress.start()

    def advance(share: float) -> None:
        if share:  # the first step is over, and so is compiling
            progress.update(task, advance=share, description="scoring")

    timer = threading.Timer(_PATIENCE, start)
    timer.start()
    try:
        yield advance
    finally:
        timer.cancel()
        timer.join()
        if started.is_set():
            progress.stop()


def _as_options(message: str) -> str:
    """Rewrite the options that ``message`` advises as the command takes them."""
    return _ADVISED.sub(lambda match: f"{parameters.option(match[1])} {match[2]}", message).replace(
        "--check-probabilities false", "--no-check-probabilities"
    )


_ADVISED = re.compile(rf"\b({'|'.join(OPTIONS)})=(-?\w+)")
parameters.add(command, CrossEntropyOptions, OPTIONS)
parameters.add(command, Asked, Asked.model_fields, panel=lambda name: "Many shards")
