"""How ``lossd serve`` logs: on stderr, a line a request, and nothing of a client's as it came."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

_PROBES = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})


def requests() -> Callable[[logging.LogRecord], bool]:
    """A filter of uvicorn's access log: who asks every second whether we live is not logged.

    What others sent is escaped, so that it can neither forge a line nor speak to a terminal: a
    query, or an X-Forwarded-For, may hold any byte above 0x7f, and some of those are controls.
    """

    def keep(record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            if record.args[2] in _PROBES:
                return False
            record.args = tuple(
                escaped(value) if isinstance(value, str) else value for value in record.args
            )
        return True

    return keep


def escaped(text: str) -> str:
    """``text`` with everything but printable ASCII as Python escapes it."""
    if text.isascii() and text.isprintable():
        return text
    return text.encode("unicode_escape").decode("ascii")


def _handler(formatter: str, **more: Any) -> dict[str, Any]:
    # Not stdout, which is for the line to paste.
    return {
        "class": "logging.StreamHandler",
        "stream": "ext://sys.stderr",
        "formatter": formatter,
        **more,
    }


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
}
