"""The command ``lossd``. Each subcommand is a module, imported only when it is the one called."""

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
from service.process import START_FAILED

# Name -> module whose function ``command`` it is: one need not wait for what another imports.
_COMMANDS = {"serve": "service.cli.serve", "score": "service.cli.score"}


class _Lazy(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        function: Callable[..., None] = import_module(_COMMANDS[cmd_name]).command
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
    """One line on stderr, and the exception that ends the command with ``status``."""
    with suppress(OSError):  # the status tells it as well
        typer.echo(f"lossd: {message}", err=True)
    return typer.Exit(status)


def main() -> None:
    """Run the command: the entry point of the console script."""
    _open_standard_files()
    foreign = foreign_kernels.fault()
    if foreign is not None:
        sys.exit(fail(foreign, START_FAILED).exit_code)
    app(prog_name="lossd")


def _open_standard_files() -> None:
    """Open what was closed at the start of stdin, stdout and stderr, to no effect.

    Python has ``None`` for them, which is printed to all the same; and a socket would become file
    number 1, and be printed to by others.
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
