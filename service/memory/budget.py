"""Budget: all memory that requests hold is counted against it, by lease, before it is taken.

A lease that does not fit waits until it is granted (``grants``). Large bodies get memory whose
pages are there already, and which the next body uses again. It is not wiped in between: a body is
read only as far as it has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import numpy as np

from service.errors import Overloaded
from service.memory.claims import Claimed
from service.memory.grants import FULL, Grants
from service.memory.pages import ALIGNMENT, Block, Bytes, Idle
from service.memory.sliding import Sliding
from service.memory.upload import Upload
from service.regimes import OPENING_LEASE_BYTES, OPENING_LEASES, SMALL_LEASE_BYTES

_numbers = count()


class Lease:
    """``size`` bytes of a budget, until they are released; made by ``Budget.lease``.

    ``claim``: how many it is expected to hold at most; ``unknown``: the same of a body of unknown
    length, once it proves to be a longer one. ``number``: later ones have higher ones.
    """

    __slots__ = (
        "__weakref__", "_budget", "_given", "_ready", "_sliding", "claim", "number", "size",
        "unknown",
    )  # fmt: skip

    def __init__(self, budget: Budget, claim: int = 0) -> None:
        self.size = 0
        self.claim = claim
        self.unknown = 0
        self.number = next(_numbers)
        self._budget = budget
        self._ready: Block | None = None
        self._given: list[Block] = []
        self._sliding: list[Sliding] = []

    def memory(self, size: int) -> Bytes:
        """``size`` bytes of what is leased: writable, and of any content."""
        if size <= SMALL_LEASE_BYTES:
            return np.empty(size, np.uint8)
        block, self._ready = self._ready, None
        if block is None or block.capacity < size:
            block = self._budget.idle.take(size)
        # What is written is warm, and until then nobody else asks.
        block.warm = max(block.warm, size)
        self._given.append(block)
        return block.bytes[:size]

    def behind(self, sliding: Sliding, kept: int, size: int) -> None:
        """Have ``sliding`` hold ``size`` bytes of what is leased. Raises as ``Sliding.hold``."""
        self.memory(size)
        self._sliding.append(sliding)
        sliding.hold(self._given[-1], kept, size)

    async def grow(self, size: int) -> None:
        """Lease ``size`` bytes more. Waits and raises as ``Budget.lease`` does."""
        await self._budget.grant(self, size)

    def expect_more(self) -> None:
        """Claim what a body of unknown length may come to."""
        self._budget.expect(self, self.unknown)

    def shrink(self, size: int) -> None:
        """Count ``size`` bytes at most, for other things than ``memory``, which is given back.

        The next body is written there, so nothing may be reading or writing it any more.
        """
        for sliding in self._sliding:
            sliding.give_back()
        blocks = self._given if self._ready is None else [*self._given, self._ready]
        if blocks:
            self._given, self._ready, self._sliding = [], None, []
        if size < self.size:
            self._budget.count(self, size - self.size)
        for block in blocks:
            self._budget.keep(block)

    async def resize(self, size: int) -> None:
        """Hold ``size`` bytes, and no memory: ``grow`` or ``shrink``."""
        self.shrink(size)
        if size > self.size:
            await self.grow(size - self.size)

    def release(self) -> None:
        """Count nothing any more; what ``memory`` gave is freed once nothing refers to it.

        Unlike ``shrink``, safe where a thread or a connection may still be at work on it.
        """
        self._given, self._ready, self._sliding = [], None, []
        if self.size:
            self._budget.count(self, -self.size)

    async def warm(self, size: int) -> None:
        """Have ``size`` bytes of memory ready, with their pages."""
        self._ready = block = self._budget.idle.take(size)
        await block.fault_in(size)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


class Budget(Grants):
    """``total`` bytes that all requests of a process share; for use on its event loop."""

    def __init__(self, total: int, wait_seconds: float) -> None:
        super().__init__(total, wait_seconds)
        self._openings = asyncio.Semaphore(OPENING_LEASES)
        # Memory kept for the next bodies: with ``leased`` at most ``total`` bytes.
        self.idle = Idle(total // 2)

    async def lease(self, size: int, memory: int | None = None, claim: int = 0) -> Lease:
        """Lease ``size`` bytes; a large lease has ``memory`` bytes ready, or else ``size``.

        ``claim``: how many it is expected to grow to. Raises ``TooLarge`` if they could never fit,
        ``Overloaded`` if they do not fit in time.
        """
        lease = Lease(self, claim)
        if self.granted(lease, size):
            return lease
        try:
            await self.grant(lease, size)
            if size > SMALL_LEASE_BYTES:
                # A body is shifted by up to a cache line, to align its data.
                await lease.warm(size + ALIGNMENT if memory is None else memory)
        except BaseException:
            lease.release()
            raise
        return lease

    @asynccontextmanager
    async def opening(self, upload: Upload | None = None) -> AsyncIterator[None]:
        """Lease the beginning of a large body, from which follows what all of it takes.

        A request that leases all of it before the end keeps its place among large ones, and none
        waits for memory of others that wait for theirs. Raises ``Overloaded`` as ``lease``.
        """
        await self._acquire()
        try:
            with await self.lease(OPENING_LEASE_BYTES) as lease:
                if upload is not None:
                    upload.lease, upload.opening = lease, True
                yield
        finally:
            if upload is not None:
                upload.lease, upload.opening = None, False
            self._openings.release()

    async def _acquire(self) -> None:
        if self._openings.locked():
            self.look_soon()
        self.openings_waiting += 1
        try:
            async with asyncio.timeout(self.wait_seconds):
                await self._openings.acquire()
        except TimeoutError:
            raise Overloaded(FULL) from None
        finally:
            self.openings_waiting -= 1

    def count(self, lease: Claimed, change: int) -> None:
        """Have ``lease`` hold ``change`` bytes more, which fit, or fewer."""
        super().count(lease, change)
        if change > 0 and self.idle.size:
            self.idle.trim(self.total - self.leased)

    def keep(self, block: Block) -> None:
        """Have ``block`` for the next body, as far as there is room."""
        self.idle.keep(block)
        self.idle.trim(self.total - self.leased)
