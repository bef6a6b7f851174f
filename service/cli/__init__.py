"""Command ``lossd``; a subcommand's module is imported only when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from service.cli import foreign_kernels
from service.process import START_FAILED, numba_variables

# Name -> module whose function ``command`` it is, so that none waits for the imports of another.
_COMMANDS = {
    "serve": "service.cli.serve",
    "score": "service.cli.score",
    "warm": "service.cli.warm",
    "report": "service.cli.report",
}


class _Lazy(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        function: Callable[..., None] | typer.Typer = import_module(_COMMANDS[cmd_name]).command
        if isinstance(function, typer.Typer):  # a group of commands
            return typer.main.get_command(function)
        alone = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        alone.command(name=cmd_name)(function)
        return typer.main.get_command(alone)


app = typer.Typer(
    cls=_Lazy,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from service import VERSION

        typer.echo(f"lossd {VERSION}")
        raise typer.Exit


@app.callback()
def lossd(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Cross-entropy loss of your own logits: over HTTP, or of a file."""


def fail(message: str, status: int = 2) -> typer.Exit:
    """Print one line on stderr, and return the exception that ends the command with ``status``."""
    with suppress(OSError):  # the status tells it as well
        typer.echo(f"lossd: {message}", err=True)
    return typer.Exit(status)


def main() -> None:
    """Run the command: the entry point of the console script."""
    _open_standard_files()
    # Before a command's module is imported, which imports Numba.
    fault = foreign_kernels.fault() or numba_variables.fault(os.environ)
    if fault is not None:
        sys.exit(fail(fault, START_FAILED).exit_code)
    app(prog_name="lossd")


def _open_standard_files() -> None:
    """Open /dev/null in place of stdin, stdout and stderr where they were closed at the start.

    Python has ``None`` for those, and a socket that is opened next would become descriptor 1, which
    others print to.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open until the end)
