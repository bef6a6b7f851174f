"""Progress of compiling: a bar on a terminal's stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from service.cli import logs

_STDERR = 2
_WIDTH = 24
# Erases what follows on the line; the cursor then goes back to its beginning, so that a line of
# the log takes the bar's place.
_ERASE = "\x1b[K"


def bar(what: str = "compiling kernels") -> Callable[[int, int], None] | None:
    """Return a function that draws how many of all are done; ``None`` where stderr is no terminal.

    The bar disappears with the last one.
    """
    try:
        terminal = os.isatty(_STDERR) and os.environ.get("TERM") != "dumb"
    except OSError:
        terminal = False
    if not terminal or sys.platform == "win32":
        return None
    started = time.monotonic()

    def draw(done: int, total: int) -> None:
        text = line(what, done, total, time.monotonic() - started) if done < total else ""
        logs.write(_STDERR, f"\r{text}{_ERASE}\r")

    return draw


def line(what: str, done: int, total: int, seconds: float) -> str:
    """Return the bar's text."""
    full = _WIDTH * done // max(total, 1)
    return f"{what} [{'#' * full}{'.' * (_WIDTH - full)}] {done} of {total}, {seconds:.0f} s"
