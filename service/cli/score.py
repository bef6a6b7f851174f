"""Command ``lossd score``: loss, perplexity, accuracy and worst elements of logits in a file."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn
from rich.table import Table

from kernels import InvalidInput
from service.cli import fail, parameters, reports
from service.cli.files import SCORED, listed, read
from service.cli.scoring import OPTIONS, Score, score
from service.codecs.json.values import speakable
from service.errors import DecodeError, InvalidOption
from service.options import CrossEntropyOptions, ReportOptions
from service.request.given import combine

# Seconds before a progress bar is shown.
_PATIENCE = 1.0
# Shown first, as a dtype or an option that was never used before takes up to 15 s to compile.
_COMPILING = "compiling kernels"


def command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="One .npz or .safetensors file with `logits`, `labels` and maybe `weight`,"
            " `sample_weight`, `mask` and `segments`; or two .npy files: logits, labels.",
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
    """Print the loss of the logits in a file, and where it is worst.

    The loss is the mean that the service answers with for the same tensors and options; options
    of a .safetensors file's metadata count as well. With `--report` it is the report's numbers that
    are printed.
    """
    kind = None if out is None else reports.suffix(out)
    query = {name: str(value) for name, value in given.items() if value is not None}
    try:
        message = read(files)
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
        reports.write(out, report, maps, files[0].name)
        typer.echo(reports.summary(report, as_json))
    elif as_json:
        typer.echo(json.dumps(speakable(asdict(result)), allow_nan=False))
    else:
        _show(result)


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


def _show(result: Score) -> None:
    console = Console()
    summary = Table.grid(padding=(0, 2))
    counted = result.elements - result.ignored
    besides = f" ({result.ignored:,} more ignored)" if result.ignored else ""
    rows = [
        ("loss", f"{result.loss:.6g}"),
        ("perplexity", f"{result.perplexity:.6g}"),
        ("greedy accuracy", f"{result.accuracy:.2%}"),
        ("elements", f"{counted:,}{besides}"),
        ("count", f"{result.count:,}"),
        ("weight sum", f"{result.weight_sum:.10g}"),
        ("loss sum", f"{result.loss_sum:.10g}"),
    ]
    if result.bits_per_byte is not None:
        rows.append(("bits per byte", f"{result.bits_per_byte:.6g}"))
    if (by := result.by_sequence) is not None:
        greedy = "" if by.greedy is None else f", {by.greedy:.2%} of them greedy"
        rows.append(("sequences", f"{by.sequences:,}{greedy}"))
        rows.append(("sequence perplexity", f"{by.perplexity:.6g}"))
    for name, value in rows:
        summary.add_row(name, value)
    console.print(summary, highlight=False)
    if not result.worst:
        return
    table = Table("element", title="worst elements", title_justify="left")
    for name in ("label", "predicted", "loss"):
        table.add_column(name, justify="right")
    for element in result.worst:
        table.add_row(
            ", ".join(map(str, element.position)),
            str(element.label),
            str(element.predicted),
            f"{element.loss:.6g}",
        )
    console.print(table, highlight=False)


def _as_options(message: str) -> str:
    """Rewrite the options that ``message`` advises as the command takes them."""
    return _ADVISED.sub(lambda match: f"{parameters.option(match[1])} {match[2]}", message).replace(
        "--check-probabilities false", "--no-check-probabilities"
    )


_ADVISED = re.compile(rf"\b({'|'.join(OPTIONS)})=(-?\w+)")
parameters.add(command, CrossEntropyOptions, OPTIONS)
