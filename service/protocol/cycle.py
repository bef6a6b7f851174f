"""Request-response cycle: uvicorn's, with fewer system calls and wake-ups."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.errors import RequestError
from service.problems import problem
from service.telemetry.counters import Counters
from service.telemetry.entry import SENT_BYTES
from service.telemetry.record import ENTRY, TRACEPARENT, Record

# Bytes that are handed to the connection at a time: at most twice as many are held for a client
# that does not read.
_PIECE = 2**18
# Bytes of a body that are copied to go out with its header section: a longer one is worth a call of
# its own.
_JOINED = 2**16
_BODILESS = (204, 304)
_SHORT_URL = 256  # bytes of a target that is remembered


class Cycle(RequestResponseCycle, Record):
    """Cycle of uvicorn's that sends an answer's header section with the beginning of its body.

    uvicorn writes it on its own: one more system call, and the client wakes up twice. A long body
    goes out in pieces, each once the client has read enough of the one before.
    """

    _header = b""

    async def send(self, message: Any) -> None:
        if not self.response_started and message["type"] == "http.response.start":
            if not self.disconnected:
                self._header = self._start(message)
            return
        header, self._header = self._header, b""
        body = message.get("body", b"")
        size = len(body)
        if header:
            if self.chunked_encoding or self.scope["method"] == "HEAD" or size > _JOINED:
                self.transport.write(header)
            elif size == self.expected_content_length and self._is_last(message):
                self.transport.write(b"".join((header, body)))
                self.entry[SENT_BYTES] = size
                self._complete()
                return
            else:
                # uvicorn subtracts the bytes that it writes, and refuses to write more.
                self.expected_content_length += len(header)
                message = {**message, "body": b"".join((header, body))}
        if self.scope["method"] != "HEAD":
            self.entry[SENT_BYTES] += size
        if size <= _PIECE:
            await super().send(message)
            return
        more = message.get("more_body", False)
        for end in range(_PIECE, size + _PIECE, _PIECE):
            piece = memoryview(body)[end - _PIECE : end]
            part: Any = {**message, "body": piece, "more_body": more or end < size}
            await super().send(part)

    def _is_last(self, message: Any) -> bool:
        """Tell whether ``message`` ends the answer, and can be sent without a wait."""
        ends = message["type"] == "http.response.body" and not message.get("more_body", False)
        return ends and not self.flow.write_paused and not self.disconnected

    def _complete(self) -> None:
        """End the answer as uvicorn does, which takes 1 us more: a small one is sent at once."""
        self.expected_content_length = 0
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _start(self, message: Any) -> bytes:
        """Return the header section, for which uvicorn takes 5 us more: fields repeat."""
        self.response_started = True
        self.waiting_for_100_continue = False
        status, scope = message["status"], self.scope
        self.status = status
        lines = [STATUS_LINE[status]]
        closes = False
        for field in (*self.default_headers, *message.get("headers", ())):
            name, line = _line(*field)
            lines.append(line)
            if name == b"content-length":
                self.expected_content_length, self.chunked_encoding = int(field[1]), False
            elif name == b"connection" and field[1].lower() == b"close":
                closes, self.keep_alive = True, False
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and scope["method"] != "HEAD" and status not in _BODILESS:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        return b"".join([*lines, b"x-request-id: ", self.request_id, b"\r\n\r\n"])


@lru_cache(256)
def _line(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return the name of a field in lower case, and its line; raises if it could end early."""
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        raise RuntimeError(f"{name!r}: {value!r} cannot be a header field")
    name = name.lower()
    return name, b"%s: %s\r\n" % (name, value)


class Counted(HttpToolsProtocol):
    """Connection whose requests are counted."""

    counters: Counters


def begin(http: Counted, fields: dict[bytes, bytes], version: str, method: bytes) -> Cycle:
    """Begin the cycle of the request whose header ``http`` has read."""
    scope: Any = http.scope
    scope["method"] = method.decode("ascii")
    scope["http_version"] = version
    known = _target if len(http.url) <= _SHORT_URL else _target.__wrapped__
    path, raw_path, query = known(http.url)
    scope["path"] = http.root_path + path
    scope["raw_path"] = http.root_path.encode("ascii") + raw_path
    scope["query_string"] = query
    cycle = Cycle(
        scope=scope,
        transport=http.transport,
        flow=http.flow,
        logger=http.logger,
        access_logger=http.access_logger,
        access_log=http.access_log,
        default_headers=http.server_state.default_headers,
        message_event=asyncio.Event(),
        expect_100_continue=http.expect_100_continue,
        keep_alive=version != "1.0" and http.parser.should_keep_alive(),
        on_response=http.on_response_complete,
    )
    headers, counters = http.headers, http.counters
    if len(fields) != len(headers) and [name for name, _ in headers].count(TRACEPARENT) > 1:
        del fields[TRACEPARENT]
    cycle.begin(counters, fields, counters.routes.get(path, 0))
    scope[ENTRY] = cycle.entry
    return cycle


# Clients send the same few again and again: 0.1 us in place of 2.
@lru_cache(256)
def _target(url: bytes) -> tuple[str, bytes, bytes]:
    """Return the path, the path before unquoting, and the query of a request's target."""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return urllib.parse.unquote(path) if "%" in path else path, parsed.path, parsed.query or b""


def refusal(
    error: RequestError, default_headers: Iterable[tuple[bytes, bytes]], request_id: bytes
) -> bytes:
    """Return the bytes of an answer that no application gives, the connection's last."""
    response = problem(error)
    fields = [*default_headers, *response.raw_headers, (b"connection", b"close")]
    lines = [_line(*field)[1] for field in fields]
    lines.append(b"x-request-id: %b\r\n" % request_id)
    parts = [STATUS_LINE[response.status_code], *lines, b"\r\n", bytes(response.body)]
    return b"".join(parts)
