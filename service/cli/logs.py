"""How ``lossd serve`` logs: on stderr, a line a request, and nothing of a client's as it came.

Lines are written by a thread of their own: whoever does not read them keeps nobody waiting.
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
# Lines that wait to be written, and characters of each: 32 MB at the very most.
_MOST_LINES = 4096
_LONGEST_LINE = 8192
# Seconds that lines are gathered for, to be written with one call.
_GATHER = 0.01
# Seconds that the end of the process waits until its last lines are written.
_LAST_SECONDS = 1.0

# Names of query parameters whose values are nobody else's business.
_SECRET = re.compile(r"token|secret|passw|auth|api.?key|bearer|credential|signature", re.IGNORECASE)
_REDACTED = "[redacted]"
_tokens: set[str] = set()


def redact(tokens: Iterable[str]) -> None:
    """Have ``tokens`` written nowhere in a request's line from now on."""
    _tokens.update(tokens)


def requests() -> Callable[[logging.LogRecord], bool]:
    """A filter of uvicorn's access log: who asks every second whether we live is not logged.

    What others sent is escaped, so that it can neither forge a line nor speak to a terminal: a
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
    """``path`` with its query, but for values that are tokens, or that have the name of some."""
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
    """Whether ``text`` is a token, or has one in it that is long enough not to be a mere word."""
    if not _tokens or not text:
        return False
    plain = unquote(text)
    return plain in _tokens or any(len(token) >= 8 and token in plain for token in _tokens)


def escaped(text: str) -> str:
    """``text`` with everything but printable ASCII as Python escapes it."""
    if text.isascii() and text.isprintable():
        return text
    return text.encode("unicode_escape").decode("ascii")


class Writer:
    """A thread that writes lines to the file ``descriptor``, and a bounded queue before it.

    Lines that come while the queue is full are dropped; how many those were is written once there
    is room again. It writes to the descriptor itself: a Python stream has a lock, and a thread
    that holds it for ever would end the process with an error at its exit.
    """

    def __init__(self, descriptor: int, most: int = _MOST_LINES) -> None:
        self._descriptor = descriptor
        self._most = most
        self._lines: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._dropped = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        """Have ``line`` written, if there is room for it."""
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
        """Wait until all that was put is written, or for ``timeout`` seconds."""
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
    """Write ``text`` to the file ``descriptor``, however long it takes; nothing if it cannot be."""
    rest = memoryview(text.encode(errors="backslashreplace"))
    with suppress(OSError):
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # it is shared with a process that wants it so
                select.select([], [descriptor], [])


class Handler(logging.Handler):
    """Logs on stderr by the ``Writer`` of this process."""

    def emit(self, record: logging.LogRecord) -> None:
        """Format ``record`` here, and have it written elsewhere."""
        try:
            _writer.put(self.format(record))
        except Exception:
            self.handleError(record)
        # After such a line the process may end at once.
        if record.levelno >= logging.CRITICAL:
            _writer.flush()


_writer = Writer(_STDERR)


def _handler(formatter: str, **more: Any) -> dict[str, Any]:
    # Not stdout, which is for the line to paste.
    return {"class": "service.cli.logs.Handler", "formatter": formatter, **more}


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
        "messages": _handler("messages"),
        "requests": _handler("requests", filters=["requests"]),
    },
    "loggers": {
        "uvicorn": {"handlers": ["messages"], "level": "INFO", "propagate": False},
        "kernels": {"handlers": ["messages"], "level": "INFO", "propagate": False},
        "uvicorn.access": {"handlers": ["requests"], "level": "INFO", "propagate": False},
    },
    # Other libraries': by default they would be written at once, by whoever logs them.
    "root": {"handlers": ["messages"], "level": "WARNING"},
}
