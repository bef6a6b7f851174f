"""One connection: where its bytes go, how long it may take, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from service.errors import TooSlow
from service.protocol.deadlines import Pace, Watch
from service.protocol.limits import REFUSED_PART, Limits, overloaded
from service.protocol.requests import Requests

# Bytes of one read. The first brings a header and the beginning of a body, which is all that a
# request holds while it waits for its turn; the rest of a body is only read when it is asked for.
_FIRST_READ = 2**14
_READ = 2**16
# And of one that holds small chunks: a thousand of them take a millisecond to parse.
_SLOW_READ = 2**12

# Bytes of answers that the system takes off us and cannot send yet: else it would keep some MB for
# each client that does not read, until it has no memory for anybody's answers.
_UNSENT = 2**15


class Http:
    """What uvicorn takes as its ``http``: makes the connections of a process."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Made with the first connection, since workers are sent this object.
        self._watch: Watch | None = None
        self._scratch: memoryview | None = None

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> Connection:
        """A connection that is yet to be made."""
        http = Requests(self._limits, config, server_state, app_state, _loop)
        if self._watch is None or self._watch.loop is not http.loop:
            self._watch = Watch(http.loop, self._limits.look_seconds)
        if self._scratch is None:
            self._scratch = memoryview(bytearray(_READ))
        return Connection(http, self._watch, self._scratch)


class Connection(asyncio.BufferedProtocol):
    """Hands the socket's bytes to uvicorn's protocol, or to a landing body.

    It is no ``asyncio.Protocol``: uvloop would never ask such for its buffer. ``scratch`` is shared
    by all connections, since what is read there is parsed at once.
    """

    def __init__(self, http: Requests, watch: Watch, scratch: memoryview) -> None:
        limits = http.limits
        self._http = http
        self._watch = watch
        self._scratch = scratch
        self._first = scratch[:_FIRST_READ]
        self._slow = scratch[:_SLOW_READ]
        self._transport: asyncio.Transport
        self._room: memoryview | None = None
        self._received = 0
        self._receiving = Pace(limits.body_bytes_per_second, limits.body_grace_seconds)
        self._sending = Pace(limits.body_bytes_per_second, limits.send_seconds)
        self._unsent = 0
        self._written = 0
        self._head = (0, False)  # which header is timed, and whether from its own first byte on
        self._head_since = 0.0
        self._lingering_since: float | None = None
        self._may_linger = limits.linger_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the deadline of the first header."""
        self._transport = cast(asyncio.Transport, transport)
        _bound_unsent(transport.get_extra_info("socket"))
        self._head_since = self._http.loop.time()
        self._watch.add(self)
        self._http.connection_made(cast(asyncio.Transport, Line(self._transport, self._close)))
        self._refuse_surplus()

    def _refuse_surplus(self) -> None:
        """Refuse one connection too many: its first request, or itself, so that files are left.

        Others are served on, however many come.
        """
        http = self._http
        above = len(http.connections) - http.most
        http.surplus = above > 0
        if above > max(1, http.most // REFUSED_PART):
            http.refuse(overloaded(http.most))
            self._transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the socket is to be read into."""
        landing = self._http.landing
        self._room = None if landing is None else landing.room()
        if self._room is not None:
            return self._room
        if self._http.in_head:
            return self._first
        chunks = self._http.chunks
        return self._scratch if chunks is None or not chunks.small else self._slow

    def buffer_updated(self, nbytes: int) -> None:
        """Have ``nbytes`` that were read parsed, or counted as landed."""
        self._received += nbytes
        if self._lingering_since is not None:
            self._may_linger -= nbytes
            if self._may_linger < 0:
                self._transport.close()
        elif self._room is None:
            self._http.data_received(self._scratch[:nbytes])
        else:
            landing, self._room = self._http.landing, None
            assert landing is not None
            landing.landed(nbytes)

    def eof_received(self) -> None:
        """Close: who does not send any more does not wait for an answer either."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Let everything go."""
        self._room = None
        self._watch.discard(self)
        self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        """Hold back what is to be sent: the client does not read."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Send on."""
        self._http.resume_writing()

    def look(self, now: float) -> None:
        """End what has taken too long."""
        http, transport = self._http, self._transport
        if self._lingering_since is not None:
            if now - self._lingering_since > http.limits.linger_seconds:
                transport.abort()
        elif self._unread_answer(transport.get_write_buffer_size(), now):
            transport.abort()
        elif http.refused:
            return  # once what was asked before is answered
        elif http.in_head:
            self._look_at_head(now)
        elif http.flow.read_paused:
            self._receiving.rest()
        elif self._receiving.behind(http.heads, self._received, now):
            rate = http.limits.body_bytes_per_second
            http.refuse(TooSlow(f"the body comes at less than {rate:,.0f} bytes a second"))

    def _unread_answer(self, unsent: int, now: float) -> bool:
        if not unsent or unsent > self._unsent:
            self._written += 1
        self._unsent = unsent
        return self._sending.behind(self._written, -unsent, now)

    def _look_at_head(self, now: float) -> None:
        http = self._http
        begun = http.head_bytes > 0
        # The first header's time runs from the connection on, later ones' from their first byte.
        state = (-1, False) if http.busy else (http.heads, begun and http.heads > 0)
        if self._head != state:
            self._head, self._head_since = state, now
            return
        kept_alive = http.heads > 0 and not begun
        most = http.timeout_keep_alive if kept_alive else http.limits.header_seconds
        if http.busy or now - self._head_since <= most:
            return
        if begun:
            http.refuse(TooSlow(f"the header did not come within {most:g} seconds"))
        else:
            self._transport.close()

    def _close(self) -> None:
        """Close; but who may still be sending is listened to for a while.

        Else the system would answer what it sends with a reset, on which clients lose the answer
        that they have not read yet.
        """
        transport = self._transport
        if transport.is_closing():
            return
        at_end = self._http.in_head and not self._http.refused
        if at_end or self._lingering_since is not None or not transport.can_write_eof():
            transport.close()
            return
        self._lingering_since = self._http.loop.time()
        if self._http.landing is not None:
            self._http.landing.fail()
        with suppress(OSError):  # the client is gone already
            transport.write_eof()
        transport.resume_reading()


def _bound_unsent(connection: socket.socket | None) -> None:
    """Have the system hold little of what ``connection``'s client does not read.

    Not by its buffer's size, which would bound what is on the way to a client far away as well. A
    Unix socket's buffer does not grow.
    """
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(AttributeError, OSError):  # not on Windows; or the client is gone already
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)


class Line:
    """A connection's transport as uvicorn is given it: closing it may take its time."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._closing = False
        self._close = close
        self.write = transport.write
        self.resume_reading = transport.resume_reading
        self.get_extra_info = transport.get_extra_info

    def pause_reading(self) -> None:
        """Read no more, unless what comes is thrown away anyway."""
        if not self._closing:
            self._transport.pause_reading()

    def close(self) -> None:
        """Close the connection once everything is sent."""
        self._closing = True
        self._close()

    def is_closing(self) -> bool:
        """Whether it was closed, or will be."""
        return self._closing or self._transport.is_closing()
