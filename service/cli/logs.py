"""Logging of ``lossd serve``: on stderr, as text or JSON, with times of RFC 3339.

A thread of its own writes the lines, so that a reader of the log that is slow delays no request.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeAlias

# A line, or a function that makes it, in the thread that writes: requests do not wait for that.
Line: TypeAlias = str | Callable[[], str]

_STDERR = 2
# Lines that may wait to be written, and characters of each: 32 MB at most.
_MOST_LINES = 4096
LONGEST_LINE = 8192
# Lines that may wait to be made: each keeps its request's header, of up to 64 KiB.
_MOST_UNMADE = 256
# Seconds that lines are gathered for, to be written with one call.
_GATHER = 0.01
# Lines that are made before others may have the interpreter: to hand it over takes as long as ten
# of them, and a request waits for no more than these.
_AT_ONCE = 32
# Seconds that the end of the process waits until its last lines are written.
_LAST_SECONDS = 1.0


@lru_cache(1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def now(at: float | None = None) -> str:
    """Write the time, or ``at`` in seconds since 1970, as RFC 3339 does: UTC, with milliseconds."""
    milliseconds = int((time.time() if at is None else at) * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


class Writer:
    """Thread that writes lines to the file ``descriptor``, from a queue of at most ``most``.

    Lines that come while the queue is full are dropped; their number is written once there is room
    again. It writes to the descriptor itself: a Python stream has a lock, and a thread that holds
    it for ever would end the process with an error at its exit.
    """

    def __init__(self, descriptor: int, most: int = _MOST_LINES) -> None:
        self._descriptor = descriptor
        self._most = most
        self._lines: SimpleQueue[Line | threading.Event] = SimpleQueue()
        self._dropped = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.formatter = logging.Formatter("%(levelname)s:  %(message)s")  # of its own line

    def put(self, line: Line) -> None:
        waiting = self._lines.qsize()
        if waiting >= self._most:
            with self._lock:
                self._dropped += 1
            return
        if isinstance(line, str):
            line = _cut(line)
        elif waiting >= _MOST_UNMADE:
            line = self._made(line)
        if self._thread is None:
            self._start()
        self._lines.put(line)

    def flush(self, timeout: float = _LAST_SECONDS) -> None:
        """Wait until all lines that were put are written, or for ``timeout`` seconds."""
        if self._thread is not None:
            written = threading.Event()
            self._lines.put(written)
            written.wait(timeout)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lossd-log", daemon=True)
                self._thread.start()
                atexit.register(self.flush)

    def _run(self) -> None:
        while True:
            items = [self._lines.get()]
            time.sleep(_GATHER)
            with suppress(Empty):
                while True:
                    items.append(self._lines.get_nowait())
            lines: list[str] = []
            for first in range(0, len(items), _AT_ONCE):
                time.sleep(0)  # a request that waits for the interpreter goes first
                lines += map(self._ended, items[first : first + _AT_ONCE])
            write(self._descriptor, "".join(lines))
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                _count(dropped)
                text = self._warning(f"{dropped} lines were dropped: the log was not read")
                write(self._descriptor, f"{text}\n")
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()

    def _ended(self, item: Line | threading.Event) -> str:
        """Make the line of ``item``, with its end; an event has none."""
        if isinstance(item, threading.Event):
            return ""
        if not isinstance(item, str):
            item = self._made(item)
        return f"{item}\n"

    def _made(self, make: Callable[[], str]) -> str:
        try:
            return _cut(make())
        except Exception as error:  # or no line would be written any more
            return self._warning(f"a line could not be made: {error!r:.200}")

    def _warning(self, text: str) -> str:
        record = logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None)
        return self.formatter.format(record)


def _cut(line: str) -> str:
    more = len(line) - LONGEST_LINE
    return line if more <= 0 else f"{line[:LONGEST_LINE]} [{more} more characters]"


def _count(dropped: int) -> None:
    # Not for the help: what this imports takes long.
    from service.telemetry.counters import here

    here().add("log_lines_dropped", dropped)


def write(descriptor: int, text: str) -> None:
    """Write ``text`` to the file ``descriptor``, however long it takes; ignore errors."""
    rest = memoryview(text.encode(errors="backslashreplace"))
    with suppress(OSError):
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # a process that shares it has set it to non-blocking
                select.select([], [descriptor], [])


class Handler(logging.Handler):
    """Logging handler that writes on stderr by the ``Writer`` of this process."""

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802
        super().setFormatter(fmt)
        if fmt is not None:
            _writer.formatter = fmt

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _writer.put(self.format(record))
        except Exception:
            self.handleError(record)
        # The process may end right after a critical line.
        if record.levelno >= logging.CRITICAL:
            _writer.flush()


_writer = Writer(_STDERR)


def put(line: Line) -> None:
    """Have ``line`` written on stderr by the thread for that."""
    _writer.put(line)


_FORMATS = {"text": "service.cli.log_formats.Text", "json": "service.cli.log_formats.Json"}
_HANDLER = "service.cli.logs.Handler"


def config(form: Literal["text", "json"]) -> dict[str, Any]:
    """Return the configuration of ``logging.config.dictConfig``.

    All lines go to stderr: stdout is for the greeting, with its line to paste.
    """
    logger = {"handlers": ["messages"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"messages": {"()": _FORMATS[form]}},
        "handlers": {"messages": {"class": _HANDLER, "formatter": "messages"}},
        "loggers": {"uvicorn": logger, "kernels": logger, "uvicorn.access": logger},
        # Other libraries: by default, the thread that logs would write the line itself.
        "root": {"handlers": ["messages"], "level": "WARNING"},
    }
