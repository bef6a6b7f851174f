"""Command ``lossd report``: reports of parts, merged to that of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kernels import InvalidInput
from kernels.report import Report
from service.cli import fail
from service.cli.reports import WRITTEN, read, summary, write

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def report() -> None:
    """Reports that `lossd score --report` wrote."""


@app.command()
def merge(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Reports of parts (`.npz`), in the order of the data."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help=f"Write the merged one: {WRITTEN}."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON on stdout, for machines.")
    ] = False,
) -> None:
    """Merge reports of parts: the numbers are those of one report of all the data, to the bit.

    The parts follow one another along the first axis of the labels, and were computed with the same
    options.
    """
    whole: Report | None = None
    for path in files:
        try:
            part = read(path)
            if whole is None:
                whole = part
            else:
                whole.merge(part)
        except InvalidInput as error:
            raise fail(f"{path}: {error.message}") from None
        except OSError as error:
            raise fail(f"{path}: {error.strerror or error}") from None
    assert whole is not None
    if out is not None:
        write(out, whole, {}, out.stem)
    typer.echo(summary(whole, as_json))


command = app
