"""lossd warm: what it is asked for, and the folder that it leaves."""

from __future__ import annotations

import platform
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kernels import ahead
from kernels.ahead import Compiled
from kernels.compiling import ChildFailed
from service.cli import app, warm
from service.process import levels
from service.process.levels import LEVELS

SOME = [Compiled("module", "module.function", ("types",))]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The CPUs that were compiled for, in an installation of this test's."""
    done: list[str] = []

    def compile_for(environment: Mapping[str, str], wanted: Any, children: int, told: Any) -> None:
        assert wanted == SOME
        folder = Path(environment["NUMBA_CACHE_DIR"]) / "lossd"
        folder.mkdir(mode=0o700)
        (folder / "lossd.lock").touch()
        (folder / "one.kernel").write_text(environment["NUMBA_CPU_NAME"])
        (folder / "one.kernel").chmod(0o600)
        done.append(environment["NUMBA_CPU_NAME"])

    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(levels, "present", lambda: ["x86-64-v3"])
    monkeypatch.setattr(ahead, "compile_for", compile_for)
    monkeypatch.setattr(ahead, "loaded", lambda: SOME)
    monkeypatch.setattr(warm, "warm_up", lambda offered, told: [])
    monkeypatch.setattr(warm, "_check", lambda level, chosen: done.append(f"check {level.cpu}"))
    return done


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["warm", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_level_is_compiled_and_where_the_cpu_has_it_tried(made: list[str]) -> None:
    output = run("--target", "x86-64-v4", "--target", "x86-64-v3", "--target", "x86-64-v4")
    assert made == ["x86-64-v4", "x86-64-v3", "check x86-64-v3"]
    assert "1 kernels for x86-64-v4, which this CPU cannot run" in output
    for name in ("x86-64-v3", "x86-64-v4"):
        folder = LEVELS[name].folder / "lossd"
        [file] = folder.iterdir()
        assert file.read_text() == name
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_all_levels_are_those_of_this_kind_of_machine(made: list[str]) -> None:
    run("--target", "all")
    assert made == ["znver4", "x86-64-v4", "znver3", "x86-64-v3", "check x86-64-v3"]
    assert {path.name for path in LEVELS["arm64"].folder.parent.iterdir()} == {*made[:4]}


@pytest.mark.parametrize("arguments", [(), ("--target", "native")])
def test_native_kernels_stay_in_the_cache(made: list[str], arguments: tuple[str, ...]) -> None:
    assert "1 kernels for native" in run(*arguments)
    assert made == []


def test_a_level_takes_the_place_of_an_older_one(made: list[str]) -> None:
    old = LEVELS["x86-64-v3"].folder / "lossd"
    old.mkdir(parents=True)
    (old / "older.kernel").touch()
    run("--target", "x86-64-v3")
    assert [path.name for path in old.iterdir()] == ["one.kernel"]


def test_a_level_that_cannot_be_compiled_leaves_nothing(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_for(*_: Any) -> None:
        raise ChildFailed("a process that compiled ended, status -9")

    monkeypatch.setattr(ahead, "compile_for", compile_for)
    result = CliRunner().invoke(app, ["warm", "--target", "x86-64-v3"])
    assert result.exit_code == 1
    assert "lossd: the kernels for x86-64-v3 cannot be made: a process" in result.output
    assert not [*LEVELS["x86-64-v3"].folder.parent.iterdir()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "x86-64-v5"], "--target is 'x86-64-v5': it must be one of znver4"),
        (["--target", "arm64"], "on this kind of machine it can be znver4, x86-64-v4, znver3"),
        (["--dtypes", "float8"], "LOSSD_DTYPES"),
    ],
)
def test_what_cannot_be_compiled_for_is_refused(
    made: list[str], arguments: list[str], said: str
) -> None:
    result = CliRunner().invoke(app, ["warm", *arguments])
    assert result.exit_code in (2, 3)
    assert said in result.output
    assert made == []
