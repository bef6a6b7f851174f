"""One connection's requests: uvicorn's protocol, with limits, and one way to refuse."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.errors import HeaderTooLarge, MalformedRequest, OutOfMemory, RequestError
from service.problems import row_for
from service.protocol import parser
from service.protocol.cycle import begin, refusal
from service.protocol.landing import Flow, Landing
from service.protocol.limits import Chunks, Limits, body_length, overloaded

# Bytes: a longer body waits in the socket until the application asks for it, and can be landed.
LARGE = 2**16

# Requests that may wait for the answer to another on their connection; browsers pipelined 6.
_PIPELINED = 64


class Requests(HttpToolsProtocol):
    """uvicorn's protocol: what is overridden are the parser's callbacks and the ends of things."""

    flow: Flow

    def __init__(
        self,
        limits: Limits,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self.limits = limits
        self.ws_protocol_class = None
        self.in_head = True  # between two requests, too
        self.head_bytes = 0  # of the header that is not complete yet
        self.heads = 0  # how many were complete: which request this is
        self.unread = 0  # bytes of the body that are still to come, where its length is known
        self.landing: Landing | None = None
        self.most = config.limit_concurrency or sys.maxsize  # connections
        self.surplus = False  # whether this is one more
        self.refused = False
        self._refusal: RequestError | None = None
        self._answering: RequestResponseCycle | None = None
        self._stays = True  # the connection, once the body that is coming is there
        self._ending = False  # after the next request, if one still comes
        self._past_parser = False
        self._deaf = False
        self._skipped = False  # chunks, which are yet to be read
        self.chunks: Chunks | None = None  # of the body that is coming, if it is in chunks

    @property
    def busy(self) -> bool:
        """Whether a request waits for its answer."""
        return self._answering is not None and not self._answering.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits for this client."""
        super().connection_lost(exc)
        self._drop(self._answering)
        self._drop(self.cycle)
        self.pipeline.clear()

    def shutdown(self) -> None:
        """Close after an answer that says so, or when no request has come for a while."""
        if self._ending or self.refused:
            return
        self._ending = True
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_started:
            cycle.keep_alive = self._stays = False
        self.loop.call_later(self.limits.last_idle_seconds, self._end_if_idle)

    def _end_if_idle(self) -> None:
        begun = self.busy or not self.in_head or self.head_bytes
        if not begun and not self.transport.is_closing():
            self.transport.close()

    def data_received(self, data: bytes | memoryview) -> None:
        """Parse what has come, in pieces where a limit ends within it."""
        rest = memoryview(data)
        try:
            while rest and not self.refused and not self._deaf:
                rest = rest[self._take(rest) :]
        except MemoryError:
            self.refuse(OutOfMemory("there is no memory to read this request into"))

    def _take(self, data: memoryview) -> int:
        """Parse the beginning of ``data``; returns how many bytes that was."""
        if self._past_parser:
            piece = bytes(data[: self.unread])
            self.on_body(piece)
            if not self.unread:
                self.parser = parser.of_requests(self)
                self.on_message_complete()
            return len(piece)
        if not self.in_head:
            chunks = self.chunks
            taken = self._parse(data)
            # Not where these bytes were the last of one body, and the first of another.
            if chunks is not None and chunks is self.chunks:
                try:
                    chunks.read(taken)
                except RequestError as error:
                    self.refuse(error)
            return taken
        head, most = self.heads, self.limits.header_bytes
        if self.head_bytes >= most:
            self.refuse(HeaderTooLarge(f"a header may have at most {most:,} bytes"))
            return 0
        taken = self._parse(data[: most - self.head_bytes])
        # A header that begins behind the end of another request is counted from the next read on.
        if self.heads == head:
            self.head_bytes += taken
        return taken

    def _parse(self, data: memoryview) -> int:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # We go on with HTTP/1.1, as a server may: but the parser has left out the body.
            if self.unread:
                self._past_parser = True
            elif self._skipped:
                self._skipped = False
                self.parser = parser.of_chunks(self)
            else:
                self.parser = parser.of_requests(self)
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

    def on_headers_complete(self) -> None:
        """Start the application, unless the header says what no request may."""
        version, method = self.parser.get_http_version(), self.parser.get_method()
        length = body_length(version, method, self.headers, self.limits.header_count)
        # 1.0 has no such status, and without a body nothing waits for it (RFC 9110, 10.1.1).
        self.expect_100_continue &= version != "1.0" and length != 0
        if self.surplus or len(self.tasks) > self.most:
            raise overloaded(self.most)
        if len(self.pipeline) >= _PIPELINED:
            raise MalformedRequest(f"more than {_PIPELINED} requests wait on this connection")
        before: RequestResponseCycle | None = self.cycle
        self.cycle = begin(self, version, method)
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
        self.heads += 1
        if self._ending:
            self.cycle.keep_alive = False
        self.head_bytes = 0
        self.in_head = False
        # The scope has the list of before: what comes now are trailers, which are for nobody.
        self.headers = []
        self.unread = length or 0
        self.chunks = Chunks(self.limits.header_bytes) if length is None else None
        self._skipped = length is None and self.parser.should_upgrade()
        self._stays = self.cycle.keep_alive
        if length is None or length > LARGE or self.expect_100_continue:
            # An answer that comes before all of the body closes the connection, and says so: what
            # follows may be more than is worth reading, or not that body but another request.
            self.cycle.keep_alive = False
        if self.unread > LARGE:
            self.landing = Landing(self, self.cycle)
            extensions: dict[str, Any] = {"lossd.landing": self.landing}
            self.scope["extensions"] = extensions
            self.flow.pause_reading()

    def on_chunk_header(self) -> None:
        """Count the chunks."""
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
        """Go on to the next request, if the body has been seen."""
        if not self.unread and not self._skipped:
            super().on_message_complete()
            self._next()

    def ask_for_body(self) -> None:
        """Read on, for the landing, and for nobody else until the body is there."""
        if self.cycle.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.cycle.waiting_for_100_continue = False
        # The parser cannot be told to skip a body, so it sees no more of this one.
        self._past_parser = True
        self.flow.held = False
        self.flow.resume_reading()
        self.flow.held = True

    def landed(self, count: int) -> None:
        """``count`` bytes of the body are where the application wants them."""
        self.unread -= count
        if not self.unread:
            self.cycle.more_body = False
            self.parser = parser.of_requests(self)
            self._next()
            self.flow.resume_reading()

    def _next(self) -> None:
        self.in_head = True
        # Nothing is to follow the last request on a connection.
        self._deaf = not self._stays
        self._past_parser = False
        self.chunks = None
        self.landing = None
        self.flow.held = False
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._stays

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with the next request that waits, or with the refusal of one.

        Not with uvicorn's keep-alive timer: ``Connection.look`` sees to that without one.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.landing is None:
            self.flow.resume_reading()
        else:
            # A large body waits for its own request, though the one before has asked for more.
            self.flow.pause_reading()
        if self._ending:
            self.loop.call_later(self.limits.last_idle_seconds, self._end_if_idle)
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._answer(self._refusal)

    def refuse(self, error: RequestError) -> None:
        """Answer ``error`` to the request that is coming, when its turn comes, and close.

        What follows on this connection is ignored.
        """
        if self.refused:
            return
        self.refused = True
        client = "{}:{}".format(*self.client) if self.client else "a client"
        self.logger.info("%s refused: %d, %s", client, row_for(error).status, error.message)
        coming = None if self.in_head else self.cycle
        self._drop(coming)
        self.pipeline = deque(pair for pair in self.pipeline if pair[0] is not coming)
        if self.busy and self._answering is not coming:
            self._refusal = error
        else:
            self._answer(error)

    def _answer(self, error: RequestError) -> None:
        if self.in_head or not self.cycle.response_started:
            self.transport.write(refusal(error, self.server_state.default_headers))
        self.transport.close()

    def _drop(self, cycle: RequestResponseCycle | None) -> None:
        """Have the application learn that nobody waits for its answer."""
        if cycle is None or cycle.response_complete:
            return
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle is self.cycle and self.landing is not None:
            self.landing.fail()
