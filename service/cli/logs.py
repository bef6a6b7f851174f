"""Logging of ``lossd serve``: on stderr, a line a request, with the client's texts escaped.

A thread of its own writes the lines, so that a reader of the log that is slow delays no request.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import select
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import unquote

from service.middleware import PROBES

_STDERR = 2
# Lines that may wait to be written, and characters of each: 32 MB at most.
_MOST_LINES = 4096
_LONGEST_LINE = 8192
# Seconds that lines are gathered for, to be written with one call.
_GATHER = 0.01
# Seconds that the end of the process waits until its last lines are written.
_LAST_SECONDS = 1.0

# Names of query parameters whose values are secret.
_SECRET = re.compile(r"token|secret|passw|auth|api.?key|bearer|credential|signature", re.IGNORECASE)
_REDACTED = "[redacted]"
_tokens: set[str] = set()


def redact(tokens: Iterable[str]) -> None:
    """Have ``tokens`` replaced in the lines of requests from now on."""
    _tokens.update(tokens)


def requests() -> Callable[[logging.LogRecord], bool]:
    """Return a filter for uvicorn's access log: it drops the probes, which come every second.

    It escapes what clients sent, so that it can neither forge a line nor control a terminal: a
    query, or an X-Forwarded-For, may hold any byte above 0x7f, and some of those are controls.
    """

    def keep(record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            client, method, path, *rest = record.args
            if path in PROBES:
                return False
            if isinstance(path, str):
                path = without_secrets(path)
            record.args = tuple(
                escaped(value) if isinstance(value, str) else value
                for value in (client, method, path, *rest)
            )
        return True

    return keep


def without_secrets(path: str) -> str:
    """Redact the tokens in ``path``, and its query's parameters that are named as secrets."""
    route, mark, query = path.partition("?")
    if mark:
        query = "&".join(map(_parameter, query.split("&")))
    if _holds_token(route):
        route = _REDACTED
    return route + mark + query


def _parameter(text: str) -> str:
    name, equals, value = text.partition("=")
    if _holds_token(name):
        return _REDACTED
    if equals and (_SECRET.search(unquote(name)) or _holds_token(value)):
        return f"{name}={_REDACTED}"
    return text


def _holds_token(text: str) -> bool:
    """Tell whether ``text`` is a token, or contains one of 8 characters or more."""
    if not _tokens or not text:
        return False
    plain = unquote(text)
    return plain in _tokens or any(len(token) >= 8 and token in plain for token in _tokens)


def escaped(text: str) -> str:
    """Escape all but printable ASCII in ``text``, as Python does."""
    if text.isascii() and text.isprintable():
        return text
    return text.encode("unicode_escape").decode("ascii")


class Writer:
    """Thread that writes lines to the file ``descriptor``, from a queue of at most ``most``.

    Lines that come while the queue is full are dropped; their number is written once there is room
    again. It writes to the descriptor itself: a Python stream has a lock, and a thread that holds
    it for ever would end the process with an error at its exit.
    """

    def __init__(self, descriptor: int, most: int = _MOST_LINES) -> None:
        self._descriptor = descriptor
        self._most = most
        self._lines: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._dropped = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        if self._lines.qsize() >= self._most:
            with self._lock:
                self._dropped += 1
            return
        if len(line) > _LONGEST_LINE:
            line = f"{line[:_LONGEST_LINE]} [{len(line) - _LONGEST_LINE} more characters]"
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
            write(self._descriptor, "".join(f"{item}\n" for item in items if isinstance(item, str)))
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                now = time.strftime("%Y-%m-%d %H:%M:%S")
                write(
                    self._descriptor,
                    f"{now} WARNING:  {dropped} lines were dropped: the log was not read\n",
                )
            for item in items:
                if not isinstance(item, str):
                    item.set()


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

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _writer.put(self.format(record))
        except Exception:
            self.handleError(record)
        # The process may end right after a critical line.
        if record.levelno >= logging.CRITICAL:
            _writer.flush()


_writer = Writer(_STDERR)


# On stderr: stdout is for the greeting, with its line to paste.
_HANDLER = "service.cli.logs.Handler"
CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"requests": {"()": "service.cli.logs.requests"}},
    "formatters": {
        "messages": {
            "()": "uvicorn.logging.DefaultFormatter",
            "fmt": "%(asctime)s %(levelprefix)s %(message)s",
        },
        "requests": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(asctime)s %(levelprefix)s %(client_addr)s "%(request_line)s" %(status_code)s',
        },
    },
    "handlers": {
        "messages": {"class": _HANDLER, "formatter": "messages"},
        "requests": {"class": _HANDLER, "formatter": "requests", "filters": ["requests"]},
    },
    "loggers": {
        "uvicorn": {"handlers": ["messages"], "level": "INFO", "propagate": False},
        "kernels": {"handlers": ["messages"], "level": "INFO", "propagate": False},
        "uvicorn.access": {"handlers": ["requests"], "level": "INFO", "propagate": False},
    },
    # Other libraries: by default, the thread that logs would write the line itself.
    "root": {"handlers": ["messages"], "level": "WARNING"},
}
