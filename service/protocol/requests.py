"""Requests: the bytes of one connection are parsed, within limits, and bodies are handed on."""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.errors import HeaderTooLarge, MalformedRequest, OutOfMemory, RequestError
from service.protocol import parser
from service.protocol.answer_order import AnswerOrder
from service.protocol.cycle import begin
from service.protocol.landing import Landing
from service.protocol.limits import Chunks, body_length, overloaded
from service.protocol.states import ENDED, State, following
from service.regimes import LANDED_BODY_BYTES

# Requests that may wait for the answer to another on their connection; browsers pipelined 6.
_PIPELINED = 64


class Requests(AnswerOrder):
    """Protocol whose callbacks of the parser move ``state`` on (``service.protocol.states``)."""

    surplus = False  # whether this connection is one more than there may be
    number = 0  # of requests whose header has been read
    unread = 0  # bytes of the body that are still to come, where its length is known
    chunks: Chunks | None = None  # of the body that is coming, if it is in chunks

    def data_received(self, data: bytes | memoryview) -> None:
        """Parse ``data``, in pieces where a limit ends within it."""
        rest = memoryview(data)
        try:
            while rest and self.state not in ENDED:
                rest = rest[self._take(rest) :]
        except MemoryError:
            self.refuse(OutOfMemory("there is no memory to read this request into"))

    def _take(self, data: memoryview) -> int:
        """Parse the beginning of ``data``; return the number of its bytes."""
        if self.state is State.LANDING:
            return self._take_past_parser(data)
        if self.state is not State.HEADER:
            return self._take_body(data)
        number, most = self.number, self.limits.header_bytes
        if self.header_read >= most:
            self.refuse(HeaderTooLarge(f"a header may have at most {most:,} bytes"))
            return 0
        taken = self._parse(data[: most - self.header_read])
        # A header that begins behind the end of another request is counted from the next read on.
        if self.number == number:
            self.header_read += taken
        return taken

    def _take_body(self, data: memoryview) -> int:
        chunks = self.chunks
        taken = self._parse(data)
        # Not where these bytes were the last of one body, and the first of another.
        if chunks is not None and chunks is self.chunks:
            try:
                chunks.read(taken)
            except RequestError as error:
                self.refuse(error)
        return taken

    def _take_past_parser(self, data: memoryview) -> int:
        piece = bytes(data[: self.unread])
        self.on_body(piece)
        if not self.unread:
            self.parser = parser.of_requests(self)
            self.on_message_complete()
        return len(piece)

    def _parse(self, data: memoryview) -> int:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade()
            offset: int = upgrade.args[0]
            return offset
        except httptools.HttpParserError as error:
            own = error.__context__
            if isinstance(own, MemoryError):
                raise own from None
            what = f"not a request of HTTP/1.1: {error}"
            if isinstance(error, httptools.HttpParserCallbackError):
                what = "the request's path cannot be read"
            self.refuse(own if isinstance(own, RequestError) else MalformedRequest(what))
        return len(data)

    def _decline_upgrade(self) -> None:
        """Go on in HTTP/1.1, as a server may, with the body that the parser has left out."""
        if self.state is not State.SKIPPED:
            self.parser = parser.of_requests(self)
        elif self.chunks is None:
            self.state = following(self.state, State.LANDING)
        else:
            self.state = following(self.state, State.BODY)
            self.parser = parser.of_chunks(self)

    def on_headers_complete(self) -> None:
        """Start the application, or queue the request, or raise ``RequestError``."""
        version, method = self.parser.get_http_version(), self.parser.get_method()
        fields = dict(self.headers)
        length = body_length(version, method, self.headers, fields, self.limits.header_count)
        # 1.0 has no such status, and without a body nothing waits for it (RFC 9110, 10.1.1).
        self.expect_100_continue &= version != "1.0" and length != 0
        if self.surplus or len(self.tasks) > self.most:
            raise overloaded(self.most)
        if len(self.pipeline) >= _PIPELINED:
            raise MalformedRequest(f"more than {_PIPELINED} requests wait on this connection")
        before: RequestResponseCycle | None = self.cycle
        self.cycle = begin(self, fields, version, method)
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
        self.number += 1
        self.header_read = 0
        # The scope keeps the old list: trailers, which come next, are dropped.
        self.headers = []
        self._begin_body(length)

    def _begin_body(self, length: int | None) -> None:
        """Go on to a body of ``length`` bytes; ``None``: in chunks."""
        skipped = length != 0 and self.parser.should_upgrade()
        self.state = following(self.state, State.SKIPPED if skipped else State.BODY)
        self.unread = length or 0
        self.chunks = Chunks(self.limits.header_bytes) if length is None else None
        self._last = self._stopping or not self.cycle.keep_alive
        # An answer before the end of such a body closes the connection, and says so: the rest may
        # be more than is worth reading, or another request in place of the expected body.
        early = length is None or length > LANDED_BODY_BYTES or self.expect_100_continue
        self.cycle.keep_alive = not (self._last or early)
        if self.unread > LANDED_BODY_BYTES:
            self.landing = Landing(self, self.cycle)
            extensions: dict[str, Any] = {"lossd.landing": self.landing}
            self.scope["extensions"] = extensions
            self.flow.pause_reading()

    def on_chunk_header(self) -> None:
        if self.chunks is not None:
            self.chunks.begun()

    def on_body(self, body: bytes) -> None:
        """Keep ``body`` for the application; of a large one, no more than one read at a time."""
        if self.chunks is None:
            self.unread -= len(body)
        else:
            self.chunks.held(len(body))
        super().on_body(body)
        if self.landing is not None:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        """Go on to the next request, unless the body was skipped and is yet to come."""
        if self.state is not State.SKIPPED:
            super().on_message_complete()
            self._end_body()

    def ask_for_body(self) -> None:
        if self.cycle.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.cycle.waiting_for_100_continue = False
        # The parser cannot be told to skip a body, so it sees no more of this one.
        if self.state is State.BODY:
            self.state = following(self.state, State.LANDING)
        self.flow.hold()

    def landed(self, count: int) -> None:
        self.unread -= count
        if not self.unread:
            self.cycle.more_body = False
            self.parser = parser.of_requests(self)
            self._end_body()
            self.flow.resume_reading()

    def _end_body(self) -> None:
        self.state = following(self.state, State.DONE if self._last else State.HEADER)
        self.chunks = None
        self.landing = None
        self.flow.held = False
        if not self.cycle.response_started:
            self.cycle.keep_alive = not self._last
