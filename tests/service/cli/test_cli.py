"""The command as a whole; its subcommands have files of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from service import VERSION
from service.cli import app

run = CliRunner().invoke


def test_version() -> None:
    result = run(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"lossd {VERSION}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []], ids=["help", "h", "nothing"])
def test_help_lists_the_commands(arguments: list[str]) -> None:
    result = run(app, arguments)
    assert "serve" in result.output
    assert "score" in result.output


def test_an_unknown_command_is_a_usage_error() -> None:
    result = run(app, ["sore"])
    assert result.exit_code == 2
    assert "sore" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        ("'--version'", {"numpy", "numba", "fastapi", "uvicorn", "pydantic_settings"}),
        ("'serve', '--help'", {"numpy", "numba", "fastapi", "uvicorn"}),
    ],
    ids=["version", "serve"],
)
def test_a_command_imports_only_what_it_needs(arguments: str, heavy: set[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['lossd', {arguments}]\n"
        "from service.cli import main\n"
        "try:\n    main()\n"
        f"except SystemExit:\n    print('imported', sorted({heavy} & set(sys.modules)))\n"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.splitlines()[-1] == "imported []"
