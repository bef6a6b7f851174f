"""The command ends in one line where another distribution's ``kernels`` is in the place of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli import foreign_kernels
from service.process import START_FAILED

ROOT = Path(__file__).parents[3]


def run(first: Path) -> subprocess.CompletedProcess[str]:
    """``lossd --version`` with ``first`` before all else on the path."""
    path = os.pathsep.join((str(first), str(ROOT)))
    code = "import sys; sys.argv = ['lossd', '--version']; from service.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=first,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("overwritten", [False, True], ids=["shadowed", "overwritten"])
def test_another_package_of_the_name_is_named_in_one_line(
    tmp_path: Path, overwritten: bool
) -> None:
    theirs = tmp_path / "kernels"
    if overwritten:
        shutil.copytree(ROOT / "service", tmp_path / "service")
        shutil.copytree(ROOT / "kernels", theirs, ignore=shutil.ignore_patterns("__pycache__"))
    theirs.mkdir(exist_ok=True)
    (theirs / "__init__.py").write_text("raise RuntimeError('it must not be imported')\n")
    ended = run(tmp_path)
    assert (ended.returncode, ended.stdout) == (START_FAILED, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith("lossd: the package `kernels` in ")
    assert str(theirs) in line


def test_a_missing_package_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert foreign_kernels.fault() is None
    monkeypatch.setattr(foreign_kernels, "find_spec", lambda name: None)
    assert foreign_kernels.fault() is not None
