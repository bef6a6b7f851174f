"""Who compiles what before the first request, and when a second process helps."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from kernels import compiled, dtypes, warm


class Helper:
    """Stands for the second process."""

    started: list[list[str]]

    def __init__(self, command: list[str], **options: Any) -> None:
        self.started.append(command)

    def wait(self) -> None:
        self.started.append(["waited for"])


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What is done, in order, with an empty cache."""
    done: list[Any] = []
    monkeypatch.setattr(warm, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(warm, "_compile", lambda dtype: done.append(dtype.name))
    monkeypatch.setattr(Helper, "started", done, raising=False)
    monkeypatch.setattr("subprocess.Popen", Helper)
    return done


def test_an_empty_cache_is_filled_by_two(events: list[Any]) -> None:
    warm.compile_common()
    assert events[0][-2:] == ["kernels.warm", "bfloat16"]
    assert events[1:] == ["float32", "float16", ["waited for"], "bfloat16"]


def test_a_full_cache_needs_one(events: list[Any]) -> None:
    warm.compile_common()
    events.clear()
    warm.compile_common()
    assert events == [dtype.name for dtype in warm.EAGER]


def test_changed_sources_make_it_empty(events: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    warm.compile_common()
    events.clear()
    monkeypatch.setattr(warm, "STAMP", b"other sources")
    warm.compile_common()
    assert len(events) == len(warm.EAGER) + 2


def test_a_read_only_cache_is_no_error(
    events: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(warm, "_cache", lambda: tmp_path / "file" / "below")
    warm.compile_common()
    assert events[-1] == dtypes.BFLOAT16.name


def test_one_process_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with compiled.one_process(tmp_path, "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with compiled.one_process(tmp_path, "lock"):
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
