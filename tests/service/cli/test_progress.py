"""The bar of compiling: on a terminal only, and gone at the end."""

from __future__ import annotations

import os
import sys

import pytest

from service.cli import progress


def test_a_line_says_how_many_are_done() -> None:
    assert progress.line("compiling kernels", 3, 12, 7.4) == (
        "compiling kernels [######..................] 3 of 12, 7 s"
    )
    assert progress.line("x", 0, 0, 0.0).endswith("0 of 0, 0 s")


def test_without_a_terminal_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(progress, "_STDERR", writing)
    assert progress.bar() is None
    os.close(writing)
    assert progress.bar() is None
    os.close(reading)


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudoterminals")
def test_on_a_terminal_it_is_drawn_and_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, terminal = os.openpty()
    monkeypatch.setattr(progress, "_STDERR", terminal)
    monkeypatch.setenv("TERM", "xterm")
    draw = progress.bar()
    assert draw is not None
    draw(1, 2)
    drawn = os.read(screen, 1000).decode()
    assert drawn.startswith("\rcompiling kernels [############............] 1 of 2, ")
    # A line of the log takes its place.
    assert drawn.endswith("\x1b[K\r")
    draw(2, 2)
    assert os.read(screen, 1000) == b"\r\x1b[K\r"
    monkeypatch.setenv("TERM", "dumb")
    assert progress.bar() is None
    os.close(screen)
    os.close(terminal)
