"""Bodies in memory that slides along them."""

from __future__ import annotations

import asyncio

from service.memory.sliding import Sliding
from service.request.body import Body, Reception


class SlidingBody(Body):
    """Body that lies in ``sliding``, and may be longer than the memory behind that.

    More comes once enough is discarded, which is to be told on the event loop.
    """

    def __init__(self, reception: Reception, sliding: Sliding, length: int) -> None:
        content = reception.placed(sliding.bytes, length)
        super().__init__(content, len(reception.prefix), reception.source)
        self._start = reception.start_in(sliding.bytes)
        self._sliding = sliding
        self._room = asyncio.Event()
        self._refusal: MemoryError | None = None

    async def at_least(self, count: int) -> None:
        """Receive as ``Body``; waits for room, and raises ``MemoryError`` if there is none."""
        while self.filled < count:
            if self._refusal is not None:
                raise self._refusal
            self._room.clear()
            await super().at_least(min(count, self._sliding.end - self._start))
            if self.filled < count:
                await self._room.wait()

    def discard(self, count: int) -> None:
        """Move the memory on; a wait for room ends with an error if the system moves none."""
        try:
            self._sliding.slide(self._start + count)
        except MemoryError as error:
            self._refusal = error
        self._room.set()
