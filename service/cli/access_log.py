"""Access log: a line for each request that ended, without tensors, tokens or control characters."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple
from urllib.parse import unquote

from service.cli import logs
from service.middleware import PROBES
from service.telemetry.entry import BEGAN, ENDED, RECEIVED_BYTES, ROUTE, SENT_BYTES, WORK
from service.telemetry.names import PHASES, UNKNOWN
from service.telemetry.record import Record
from service.telemetry.totals import phases as times_of_phases

# Paths that are asked every few seconds, and whose lines nobody reads.
UNLOGGED = PROBES | {"/metrics"}

# Names of query parameters whose values are secret.
_SECRET = re.compile(r"token|secret|passw|auth|api.?key|bearer|credential|signature", re.IGNORECASE)
_REDACTED = "[redacted]"
_LONGEST_PATH = 1024  # characters: a line that is cut would be no JSON
_PLAIN = re.compile(r"[A-Za-z0-9/_.~{}-]{1,256}")
# Of less than a second each: one call in place of six, which take 2 us more.
_PHASES = ",".join(f'"{name}":0.%09d' for name in PHASES)
_CUT = re.compile(r"\\+$")  # half an escape
_tokens: set[str] = set()


def redact(tokens: Iterable[str]) -> None:
    """Have ``tokens`` replaced in the lines of requests from now on."""
    _tokens.update(tokens)


def observer(form: str, put: Callable[[logs.Line], None] = logs.put) -> Callable[[Record], None]:
    """Return a function that has a request's line written by ``put``; ``form``: text or json.

    The line is made when it is written: that takes 11 us, a fifth of a small request.
    """
    line = {"json": json_line, "text": text_line}[form]

    def observe(record: Record) -> None:
        scope = record.scope
        if scope is None or scope["path"] not in UNLOGGED or scope["query_string"]:
            put(partial(line, record, time.time()))

    return observe


class _Texts(NamedTuple):
    """Parts of a line that are texts: none holds a quote, a backslash or a control character."""

    request_id: str
    trace: str | None
    span: str | None
    client: str
    method: str
    path: str
    route: str


def _texts(record: Record) -> _Texts:
    scope, parent = record.scope, record.parent
    trace, span = record.trace, record.span
    if trace is None and parent is not None:
        trace, span = parent.trace, parent.span
    method = path = client = "-"
    if scope is not None:
        method, path = scope["method"], scope["path"]
        if scope["query_string"] or _tokens or not _PLAIN.fullmatch(path):
            path = _target(path, scope["query_string"])
        if scope["client"]:
            host, port = scope["client"]
            client = f"{host}:{port}"
    return _Texts(
        _quoted(record.request_id.decode("ascii")),
        None if trace is None else f"{trace:032x}",
        None if span is None else f"{span:016x}",
        client,
        method,
        path,
        record.counters.labels.get(record.entry[ROUTE], UNKNOWN),
    )


# An f-string, as 11 us of a request are too many: a dict of these, and orjson, take three times as
# long. Seconds have nine digits, so that the phases add up to the duration.
def json_line(record: Record, at: float) -> str:
    """Write the line of a request that ended ``at`` seconds since 1970, as a JSON object."""
    request_id, trace, span, client, method, path, route = _texts(record)
    entry, status = record.entry, record.status
    traced = "" if trace is None else f'"trace_id":"{trace}","span_id":"{span}",'
    phases = problem = ""
    if entry[WORK]:
        spent = times_of_phases(entry)
        if max(spent) < 10**9:
            phases = _PHASES % spent
        else:
            named = zip(PHASES, spent, strict=True)
            phases = ",".join(f'"{name}":{each / 1e9:.9f}' for name, each in named)
        phases = f',"phases":{{{phases}}}'
    if record.problem is not None:
        problem = f',"problem":"{record.problem}"'
    return (
        f'{{"time":"{logs.now(at)}","level":"info","message":"{method} {path} {status}",'
        f'"request_id":"{request_id}",{traced}"client":"{client}","method":"{method}",'
        f'"path":"{path}","route":"{route}","status":{status},'
        f'"duration":{(entry[ENDED] - entry[BEGAN]) / 1e9:.9f},'
        f'"received_bytes":{entry[RECEIVED_BYTES]},"sent_bytes":{entry[SENT_BYTES]}'
        f"{phases}{problem}}}"
    )


def text_line(record: Record, at: float) -> str:
    """Write the line for people: the request, its status and time, and then names and values."""
    request_id, trace, _, client, method, path, route = _texts(record)
    entry = record.entry
    more = [f"request_id={request_id}", f"route={route}"]
    if trace is not None:
        more.append(f"trace_id={trace}")
    more += [f"received_bytes={entry[RECEIVED_BYTES]}", f"sent_bytes={entry[SENT_BYTES]}"]
    more += [f"{name}={spent / 1e6:.3f}ms" for name, spent in record.phases().items()]
    if record.problem is not None:
        more.append(f"problem={record.problem}")
    spent = (entry[ENDED] - entry[BEGAN]) / 1e6
    return (
        f'{logs.now(at)} INFO:     {client} "{method} {path}" {record.status} {spent:.3f} ms '
        + " ".join(more)
    )


def _target(path: str, query: bytes) -> str:
    """Path and query, escaped: they may hold any byte above 0x7f, and some are controls."""
    if query:
        path = f"{path}?{query.decode('latin-1')}"
    path = _quoted(escaped(without_secrets(path)))
    more = len(path) - _LONGEST_PATH
    return path if more <= 0 else f"{_CUT.sub('', path[:_LONGEST_PATH])} [{more} more characters]"


def _quoted(text: str) -> str:
    """Escape quotes and backslashes, as JSON does; no others are in a line."""
    if '"' in text or "\\" in text:
        return text.replace("\\", "\\\\").replace('"', '\\"')
    return text


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
