"""Request-response cycle: uvicorn's, with fewer system calls and wake-ups."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Iterable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.errors import RequestError
from service.problems import RECORD, problem
from service.telemetry.counters import Counters
from service.telemetry.entry import SENT_BYTES
from service.telemetry.record import Record

# Bytes that are handed to the connection at a time: at most twice as many are held for a client
# that does not read.
_PIECE = 2**18
# Bytes of a body that are copied to go out with its head: a longer one is worth a call of its own.
_JOINED = 2**16


class Cycle(RequestResponseCycle):
    """Cycle of uvicorn's that sends an answer's head together with the beginning of its body.

    uvicorn writes the head on its own: one more system call, and the client wakes up twice. A long
    body goes out in pieces, each once the client has read enough of the one before.
    """

    record: Record
    _head = b""

    async def send(self, message: Any) -> None:
        body = message.get("body", b"")
        if len(body) <= _PIECE:
            await self._send(message)
            return
        more = message.get("more_body", False)
        for end in range(_PIECE, len(body) + _PIECE, _PIECE):
            piece = memoryview(body)[end - _PIECE : end]
            await self._send({**message, "body": piece, "more_body": more or end < len(body)})

    async def _send(self, message: Any) -> None:
        if not self.response_started:
            transport, held = self.transport, _Held()
            self.transport = cast(asyncio.Transport, held)
            try:
                await super().send(message)
            finally:
                self.transport = transport
            record = self.record
            record.status = message["status"]
            # Not among the application's headers, each of which uvicorn checks for 0.5 us.
            self._head = b"%bx-request-id: %b\r\n\r\n" % (held.text[:-2], record.id)
            return
        head, self._head = self._head, b""
        body = message.get("body", b"")
        if self.scope["method"] != "HEAD":
            self.record.entry[SENT_BYTES] += len(body)
        if head:
            if self.chunked_encoding or self.scope["method"] == "HEAD" or len(body) > _JOINED:
                self.transport.write(head)
            else:
                # uvicorn subtracts the bytes that it writes, and refuses to write more.
                self.expected_content_length += len(head)
                message = {**message, "body": b"".join((head, body))}
        await super().send(message)


class _Held:
    """Stand-in for a transport that keeps what is written."""

    text = b""

    def write(self, data: bytes) -> None:
        self.text = data


def begin(http: HttpToolsProtocol, counters: Counters, version: str, method: bytes) -> Cycle:
    """Begin the cycle of the request whose header ``http`` has read."""
    scope: Any = http.scope
    scope["method"] = method.decode("ascii")
    scope["http_version"] = version
    url = httptools.parse_url(http.url)
    path = url.path.decode("ascii")
    path = urllib.parse.unquote(path) if "%" in path else path
    scope["path"] = http.root_path + path
    scope["raw_path"] = http.root_path.encode("ascii") + url.path
    scope["query_string"] = url.query or b""
    scope[RECORD] = record = Record(counters, http.headers, counters.routes.get(path, 0))
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
    cycle.record = record
    return cycle


def refusal(
    error: RequestError, default_headers: Iterable[tuple[bytes, bytes]], request_id: bytes
) -> bytes:
    """Return the bytes of an answer that no application gives, the connection's last."""
    response = problem(error)
    own = (b"connection", b"close"), (b"x-request-id", request_id)
    fields = [*default_headers, *response.raw_headers, *own]
    lines = [b"%s: %s\r\n" % field for field in fields]
    head = STATUS_LINE[response.status_code] + b"".join(lines)
    return head + b"\r\n" + bytes(response.body)
