"""A large body's way past the parser: the socket is read into the memory where it will be used."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.errors import Disconnected

if TYPE_CHECKING:
    from service.protocol.requests import Requests

# Bytes that are read at a time: some 0.3 ms, after which other connections have their turn.
_MOST = 2**20


class Flow(FlowControl):
    """uvicorn's control of reading, which a landing body takes out of its hands."""

    held = False

    def resume_reading(self) -> None:
        """Read on, unless the body is to wait until it is asked for."""
        if not self.held:
            super().resume_reading()


class Landing:
    """The scope extension ``lossd.landing`` of one request whose body is ``http.unread`` bytes.

    Up to the first ``receive_into``, the body comes through ASGI's ``receive`` as any other; from
    then on through this alone, and ``receive`` only says when the client is gone.
    """

    def __init__(self, http: Requests, cycle: RequestResponseCycle) -> None:
        # The cycle's scope has this: a circle would keep all of it until the next collection.
        self._http: Requests = weakref.proxy(http)
        self._cycle: RequestResponseCycle = weakref.proxy(cycle)
        self._destination: memoryview | None = None
        self._filled = 0
        self._progress: Callable[[int], None] | None = None
        self._full: asyncio.Future[None] | None = None

    async def receive_into(self, destination: memoryview, progress: Callable[[int], None]) -> None:
        """Fill ``destination`` with the body's next bytes, which must be as many.

        ``progress`` is told how many are there. Raises ``Disconnected`` where the client goes away,
        or is too slow, and ``ValueError`` where the body has fewer bytes left.
        """
        parsed = self._cycle.body
        # The connection may have gone on to the next request, if all of this body is parsed.
        unread = self._http.unread if self._http.landing is self else 0
        if len(destination) > len(parsed) + unread:
            raise ValueError("the body has fewer bytes left than its destination")
        taken = min(len(parsed), len(destination))
        destination[:taken] = parsed[:taken]
        del parsed[:taken]
        if not parsed:
            # Or the next receive would give an empty message, which ends a body.
            self._cycle.message_event.clear()
        if taken:
            progress(taken)
        if taken < len(destination):
            await self._land(destination[taken:], lambda more: progress(taken + more))

    async def _land(self, destination: memoryview, progress: Callable[[int], None]) -> None:
        if self._cycle.disconnected:
            raise Disconnected
        self._destination, self._filled, self._progress = destination, 0, progress
        self._full = asyncio.get_running_loop().create_future()
        self._http.ask_for_body()
        try:
            await self._full
        finally:
            # From here on not a byte may be written there, whatever ended this.
            self._stop()
            # What it raises has a traceback to here: a circle would keep all of the body.
            self._full = None

    def room(self) -> memoryview | None:
        """Where the next bytes from the socket are to go, if they are asked for."""
        # Who cancelled may use the memory for something else before the finally above has run.
        if self._destination is None or self._full is None or self._full.done():
            return None
        return self._destination[self._filled : self._filled + _MOST]

    def landed(self, count: int) -> None:
        """Take note of ``count`` bytes that were written to ``room``."""
        assert self._destination is not None
        assert self._progress is not None
        assert self._full is not None
        self._filled += count
        self._progress(self._filled)
        if self._filled == len(self._destination):
            self._stop()
            self._full.set_result(None)
        # Last, since the connection goes on to the next request once the body is there.
        self._http.landed(count)

    def fail(self) -> None:
        """Have whoever waits for the body learn that no more of it will come."""
        self._destination = None
        if self._full is not None and not self._full.done():
            self._full.set_exception(Disconnected())

    def _stop(self) -> None:
        if self._destination is not None:
            self._destination = None
            self._http.flow.pause_reading()
        self._progress = None
