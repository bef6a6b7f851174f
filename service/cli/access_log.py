"""Access log: a line for each request that ended, without tensors, tokens or control characters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

import orjson

from service.cli import logs
from service.middleware import PROBES
from service.telemetry.entry import BEGAN, ENDED, RECEIVED_BYTES, ROUTE, SENT_BYTES
from service.telemetry.names import UNKNOWN
from service.telemetry.record import Record, Scope

# Paths that are asked every few seconds, and whose lines nobody reads.
UNLOGGED = PROBES | {"/metrics"}

# Names of query parameters whose values are secret.
_SECRET = re.compile(r"token|secret|passw|auth|api.?key|bearer|credential|signature", re.IGNORECASE)
_REDACTED = "[redacted]"
_LONGEST_PATH = 1024  # characters: a line that is cut would be no JSON
_tokens: set[str] = set()


def redact(tokens: Iterable[str]) -> None:
    """Have ``tokens`` replaced in the lines of requests from now on."""
    _tokens.update(tokens)


def observer(form: str, put: Callable[[str], None] = logs.put) -> Callable[[Record], None]:
    """Return a function that has a request's line written by ``put``; ``form``: text or json."""
    line = {"json": json_line, "text": text_line}[form]

    def observe(record: Record) -> None:
        scope = record.scope
        if scope is None or scope["path"] not in UNLOGGED or scope["query_string"]:
            put(line(fields(record)))

    return observe


def fields(record: Record) -> dict[str, Any]:
    """Members of the line of a request: times in seconds, None left out."""
    entry = record.entry
    parent = record.parent
    trace = record.trace or (parent.trace if parent else None)
    span = record.span or (parent.span if parent else None)
    method, path, client = "-", "-", None
    scope = record.scope
    if scope is not None:
        method, path, client = scope["method"], _target(scope), scope["client"]
    made = {
        "time": logs.now(),
        "level": "info",
        "message": f"{method} {path} {record.status}",
        "request_id": record.request_id.decode("ascii"),
        "trace_id": None if trace is None else f"{trace:032x}",
        "span_id": None if span is None else f"{span:016x}",
        "client": None if client is None else f"{client[0]}:{client[1]}",
        "method": method,
        "path": path,
        "route": record.counters.labels.get(entry[ROUTE], UNKNOWN),
        "status": record.status,
        "duration": (entry[ENDED] - entry[BEGAN]) / 1e9,
        "received_bytes": entry[RECEIVED_BYTES],
        "sent_bytes": entry[SENT_BYTES],
        "phases": {name: spent / 1e9 for name, spent in record.phases().items()} or None,
        "problem": record.problem,
    }
    return {name: value for name, value in made.items() if value is not None}


def json_line(given: dict[str, Any]) -> str:
    """Write the line as a JSON object."""
    return orjson.dumps(given).decode()


def text_line(given: dict[str, Any]) -> str:
    """Write the line for people: the request, its status and time, and then names and values."""
    begin = (
        f'{given["time"]} INFO:     {given.get("client", "-")} "{given["method"]} {given["path"]}"'
        f" {given['status']} {given['duration'] * 1000:.3f} ms"
    )
    named = ("request_id", "trace_id", "route", "received_bytes", "sent_bytes", "problem")
    more = [f"{name}={given[name]}" for name in named if name in given]
    phases = given.get("phases", {})
    more += [f"{name}={spent * 1000:.3f}ms" for name, spent in phases.items()]
    return " ".join([begin, *more])


def _target(scope: Scope) -> str:
    """Path and query, escaped: they may hold any byte above 0x7f, and some are controls."""
    path, query = scope["path"], scope["query_string"]
    if query:
        path = f"{path}?{query.decode('latin-1')}"
    path = escaped(without_secrets(path))
    more = len(path) - _LONGEST_PATH
    return path if more <= 0 else f"{path[:_LONGEST_PATH]} [{more} more characters]"


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
