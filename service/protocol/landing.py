"""Landing: a large body goes past the parser, from the socket into the memory of its lease."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.errors import Disconnected

# Bytes of one read: some 0.3 ms, after which other connections have their turn.
_MOST = 2**20


class Flow(FlowControl):
    """uvicorn's flow control; a body that lands is read for its landing only."""

    held = False

    def resume_reading(self) -> None:
        """Read on, unless a landing alone may ask for that."""
        if not self.held:
            super().resume_reading()

    def hold(self) -> None:
        """Read on, and let nobody else resume reading until ``held`` is unset."""
        super().resume_reading()
        self.held = True


class Source(Protocol):
    """Connection that a body lands from."""

    landing: Landing | None  # of the request that is coming
    unread: int  # bytes of that request's body that are still to come

    def ask_for_body(self) -> None:
        """Read the socket for the landing, and for nobody else until the body is there."""

    def landed(self, count: int) -> None:
        """Take note of ``count`` bytes of the body that were read into the landing's memory."""


@dataclass(slots=True)
class _Target:
    """Memory that is being filled; ``full`` is done once it is, or cannot be."""

    memory: memoryview
    progress: Callable[[int], None]
    full: asyncio.Future[None]
    filled: int = 0


class Landing:
    """Scope extension ``lossd.landing`` of one request, whose body is read into given memory.

    Up to the first ``receive_into``, the body comes through ASGI's ``receive`` as any other. From
    then on it comes through this alone, and ``receive`` only reports the disconnect.
    """

    def __init__(self, source: Source, cycle: RequestResponseCycle) -> None:
        # Weak, as the cycle's scope holds this: a reference cycle would keep all of it for long.
        self._source: Source = weakref.proxy(source)
        self._cycle: RequestResponseCycle = weakref.proxy(cycle)
        self._target: _Target | None = None

    async def receive_into(self, destination: memoryview, progress: Callable[[int], None]) -> None:
        """Fill ``destination``, of bytes, with as many bytes of the body: the next ones.

        ``progress`` is called with the number of bytes that are there so far. Raises
        ``Disconnected`` if the client goes away or its request is refused (it is too slow), and
        ``ValueError`` if fewer bytes of the body are left.
        """
        parsed = self._cycle.body
        # The connection may have gone on to the next request, if all of this body is parsed.
        unread = self._source.unread if self._source.landing is self else 0
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

    async def _land(self, memory: memoryview, progress: Callable[[int], None]) -> None:
        if self._cycle.disconnected:
            raise Disconnected
        # In no local variable: the traceback of what ``full`` raises refers to this frame, and the
        # reference cycle would keep the body's memory.
        self._target = _Target(memory, progress, asyncio.get_running_loop().create_future())
        self._source.ask_for_body()
        try:
            await self._target.full
        finally:
            # From here on not a byte may be written there, whatever ended this.
            self._stop()

    def room(self) -> memoryview | None:
        """Return the memory for the next bytes from the socket, if they are asked for."""
        target = self._target
        # After a cancellation the memory may be in other use before the ``finally`` above runs.
        if target is None or target.full.done():
            return None
        return target.memory[target.filled : target.filled + _MOST]

    def landed(self, count: int) -> None:
        """Take note of ``count`` bytes that were read into ``room``."""
        target = self._target
        assert target is not None
        target.filled += count
        target.progress(target.filled)
        if target.filled == len(target.memory):
            self._stop()
            target.full.set_result(None)
        # Last, since the connection goes on to the next request once the body is there.
        self._source.landed(count)

    def fail(self) -> None:
        """Raise ``Disconnected`` where the body is awaited: no more of it will come."""
        target, self._target = self._target, None
        if target is not None and not target.full.done():
            target.full.set_exception(Disconnected())

    def _stop(self) -> None:
        if self._target is not None:
            self._target = None
            self._cycle.flow.pause_reading()
