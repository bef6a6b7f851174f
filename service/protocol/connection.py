"""Connections: buffers that the socket is read into, deadlines, and the close."""

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
from service.protocol.states import ENDED, State
from service.telemetry.counters import here

# Bytes of a read of a header section. It brings the beginning of a body too, which is all that a
# request holds while it waits for memory; the rest of a body is only read when it is asked for.
_HEADER_READ = 2**14
# Bytes of a read of a body.
_BODY_READ = 2**16
# Bytes of a read of small chunks: a thousand of them take 1 ms to parse.
_SMALL_CHUNKS_READ = 2**12

# Bytes of answers that the system may hold unsent: by default it keeps some MB for each client that
# does not read, until it has no memory for the answers of others.
_UNSENT = 2**15


class Http:
    """Factory of a process's connections: uvicorn's setting ``http``."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Made with the first connection, since this object is pickled for the workers.
        self._watch: Watch | None = None
        self._scratch: memoryview | None = None

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> Connection:
        """Return a connection, whose transport ``connection_made`` will bring."""
        http = Requests(self._limits, here(), config, server_state, app_state, _loop)
        if self._watch is None or self._watch.loop is not http.loop:
            self._watch = Watch(http.loop, self._limits.look_seconds)
        if self._scratch is None:
            self._scratch = memoryview(bytearray(_BODY_READ))
        return Connection(http, self._watch, self._scratch)


class Connection(asyncio.BufferedProtocol):
    """Protocol that hands the socket's bytes to ``Requests``, or reads them into a landing.

    It is no ``asyncio.Protocol``, which uvloop never asks for its buffer. ``scratch`` is shared by
    all connections, since what is read there is parsed at once.
    """

    def __init__(self, http: Requests, watch: Watch, scratch: memoryview) -> None:
        limits = http.limits
        self._http = http
        self._watch = watch
        self._scratch = scratch
        self._header_buffer = scratch[:_HEADER_READ]
        self._small_chunks_buffer = scratch[:_SMALL_CHUNKS_READ]
        self._transport: asyncio.Transport
        self._room: memoryview | None = None  # of a landing, while it is read into
        self._received = 0  # bytes
        self._receiving = Pace(limits.body_bytes_per_second, limits.body_grace_seconds)
        self._sending = Pace(limits.body_bytes_per_second, limits.send_seconds)
        self._unsent = 0  # bytes, at the last look
        self._writes = 0  # looks that found all sent, or more to send: each starts a new credit
        self._header = (0, False)  # which header is timed, and whether from its own first byte on
        self._header_since = 0.0
        self._lingering_since: float | None = None
        self._may_linger = limits.linger_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the deadline of the first header."""
        self._transport = cast(asyncio.Transport, transport)
        _bound_unsent(transport.get_extra_info("socket"))
        self._header_since = self._http.loop.time()
        self._watch.add(self)
        self._http.connection_made(cast(asyncio.Transport, Line(self._transport, self._close)))
        # Above the limit it is refused at its first request, or at once if many more are: so
        # descriptors are left, and the other connections are served.
        http = self._http
        above = len(http.connections) - http.most
        http.surplus = above > 0
        if above > max(1, http.most // REFUSED_PART):
            http.refuse(overloaded(http.most))
            self._transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        landing = self._http.landing
        self._room = None if landing is None else landing.room()
        if self._room is not None:
            return self._room
        if self._http.state is State.HEADER:
            return self._header_buffer
        chunks = self._http.chunks
        small = chunks is not None and chunks.small
        return self._small_chunks_buffer if small else self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Parse ``nbytes`` that were read, or count them as landed."""
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
        """Close: a client that has ended its side is taken for gone."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._room = None
        self._watch.discard(self)
        self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        """Have the application's ``send`` wait: the client does not read."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    def look(self, now: float) -> None:
        """End what has taken too long; ``now`` is the event loop's time in seconds."""
        http, transport = self._http, self._transport
        if self._lingering_since is not None:
            if now - self._lingering_since > http.limits.linger_seconds:
                transport.abort()
        elif self._unread_answer(transport.get_write_buffer_size(), now):
            transport.abort()
        elif http.state in ENDED:
            return  # the answers that are due close it
        elif http.state is State.HEADER:
            self._look_at_header(now)
        elif http.flow.read_paused:
            self._receiving.rest()
        elif self._receiving.behind(http.number, self._received, now):
            rate = http.limits.body_bytes_per_second
            http.refuse(TooSlow(f"the body comes at less than {rate:,.0f} bytes a second"))

    def _unread_answer(self, unsent: int, now: float) -> bool:
        if not unsent or unsent > self._unsent:
            self._writes += 1
        self._unsent = unsent
        return self._sending.behind(self._writes, -unsent, now)

    def _look_at_header(self, now: float) -> None:
        http = self._http
        begun = http.header_read > 0
        # The first header's time runs from the connection on, later ones' from their first byte.
        state = (-1, False) if http.busy else (http.number, begun and http.number > 0)
        if self._header != state:
            self._header, self._header_since = state, now
            return
        kept_alive = http.number > 0 and not begun
        most = http.timeout_keep_alive if kept_alive else http.limits.header_seconds
        if http.busy or now - self._header_since <= most:
            return
        if begun:
            http.refuse(TooSlow(f"the header did not come within {most:g} seconds"))
        else:
            self._transport.close()

    def _close(self) -> None:
        """Close; in mid-request, read on for a while and discard what comes.

        Else the system would answer it with a reset, on which a client loses the answer that it has
        not read yet.
        """
        transport = self._transport
        if transport.is_closing():
            return
        at_end = self._http.state in (State.HEADER, State.DONE)
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
    """Bound the bytes that the system holds unsent for the client of ``connection``.

    The size of the socket's buffer would also bound the bytes in flight to a client far away. A
    Unix socket's buffer does not grow.
    """
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(AttributeError, OSError):  # not on Windows; or the client is gone already
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)


class Line:
    """Transport that ``Requests`` is given: ``close`` is ``Connection``'s own."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._closing = False
        self._close = close
        self.write = transport.write
        self.resume_reading = transport.resume_reading
        self.get_extra_info = transport.get_extra_info

    def pause_reading(self) -> None:
        """Pause reading, unless what comes is discarded anyway."""
        if not self._closing:
            self._transport.pause_reading()

    def close(self) -> None:
        """Close the connection once everything is sent."""
        self._closing = True
        self._close()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()
