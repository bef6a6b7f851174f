"""The check for a GPU: a part that hangs, fails or dies costs the others nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cuda import check, figures, wheels
from benchmarks.cuda.check import Part

PUT = "from benchmarks.cuda.figures import put; put('seen', {name!r}); put('twice', 1); "
# Each leaves a process of its own behind, which sleeps, in the part's group.
CHILD = (
    "import subprocess, sys; "
    "put('child', subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)']).pid); "
)


def part(name: str, code: str, seconds: float = 20.0) -> Part:
    return Part(name, seconds, ("-c", PUT.format(name=name) + code))


def gone(process: int) -> bool:
    """True for a process that has ended, reaped or not."""
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_parts_that_fail_cost_the_others_nothing(tmp_path: Path) -> None:
    parts = [
        part("good", "put('twice', 2)"),
        Part("hanging", 0.0, ("-c", "import time; time.sleep(99)")),
        part("failing", "raise SystemExit(3)"),
        part("dying", "import os; os.kill(os.getpid(), 11)"),
        part("cut off", "import os; open(os.environ['LOSSD_FIGURES'], 'a').write('{\"half')"),
    ]
    parts[1] = parts[1]._replace(seconds=-sum(other.seconds for other in parts[:1]) + 1.0)
    results = check.run(parts, tmp_path)
    told: dict[str, Any] = json.loads((tmp_path / "figures.json").read_text())
    assert {name: result["status"] for name, result in told.items()} == {
        "good": "ok",
        "hanging": "out of time",
        "failing": "failed: status 3",
        "dying": "failed: status -11",
        "cut off": "ok",
    }
    assert told["good"]["figures"] == {"seen": "good", "twice": 2}
    assert all(results[name].figures["seen"] == name for name in told if name != "hanging")
    assert '"seen": "failing"' in (tmp_path / "failing.log").read_text()


@pytest.mark.parametrize("deaf", ["", "import signal; signal.signal(15, signal.SIG_IGN); "])
def test_a_part_takes_its_processes_along(
    deaf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts that end at SIGTERM, and parts that ignore it."""
    monkeypatch.setattr(check, "_GRACE", 0.3)
    hanging = part("hanging", deaf + CHILD + "import time; time.sleep(99)")
    watched = check._watched(hanging, 60.0, tmp_path)
    child = next(result.figures["child"] for result in watched if "child" in result.figures)
    assert not gone(child)
    watched.close()
    # SIGKILL is sent to the group; the system ends another process than the one waited for later.
    deadline = time.monotonic() + 60.0
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone(child)


def test_a_part_has_the_time_that_others_left(tmp_path: Path) -> None:
    parts = [Part("first", 30.0, ("-c", "")), Part("second", 5.0, ("-c", ""))]
    results = check.run(parts, tmp_path)
    assert results["first"].limit == pytest.approx(30.0, abs=1.0)
    assert results["second"].limit > 15.0


def test_all_of_it_ends_within_nine_minutes() -> None:
    assert sum(part.seconds for part in check.parts()) <= 530
    assert [part.name for part in check.parts()] == [
        "device", "suite", "sanitizer", "speed", "service",
    ]  # fmt: skip


def test_a_part_that_is_none_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["sweet"]) == 2
    assert "sweet" in capsys.readouterr().err


def test_figures_go_nowhere_unasked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(figures.VARIABLE, raising=False)
    figures.put("a", {"b": 1})
    assert json.loads(capsys.readouterr().out) == {"a": {"b": 1}}


def test_wheels_are_those_of_the_lock_but_for_the_machines_own() -> None:
    lock = (check._ROOT / "requirements" / "run.txt").read_text()
    entries = list(wheels.needed(lock))
    names = {entry.partition("==")[0] for entry in entries}
    assert {"fastapi", "uvicorn", "pydantic-core", "orjson"} <= names
    assert not names & {"numba", "numpy", "llvmlite", "colorama"}
    assert all("--hash=sha256:" in entry for entry in entries)
    assert os.access(check._ROOT / "benchmarks" / "cuda" / "check.sh", os.X_OK)
