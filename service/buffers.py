"""Memory by lease: all that requests hold is counted against one budget before it is taken.

What does not fit waits a bounded time for its turn. Large bodies get memory whose pages are there
already, and which the next body uses again. It is not wiped in between: a body is read only as far
as it has come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

import numpy as np

from service.codecs import TooLarge
from service.errors import Overloaded
from service.pages import ALIGNMENT, Block, Bytes, Idle
from service.sliding import Sliding

# Bytes: a lease of no more is a small one, and an eighth of the budget is for small ones only, so
# that however many large bodies are slow to come, small requests are answered.
SMALL = 2**20
_RESERVED = 8
# Bytes that are leased for the beginning of a large body, and how many such leases there are at a
# time: 4 MiB in all, half of what is for small ones only where the budget is 64 MiB.
_OPENING = 2**17
_OPENINGS = 32
_FULL = "other requests hold all the memory there is"


class Lease:
    """``size`` bytes of a budget, until they are released; made by ``Budget.lease``."""

    __slots__ = ("__weakref__", "_budget", "_given", "_ready", "_sliding", "size")

    def __init__(self, budget: Budget) -> None:
        self.size = 0
        self._budget = budget
        self._ready: Block | None = None
        self._given: list[Block] = []
        self._sliding: list[Sliding] = []

    def memory(self, size: int) -> Bytes:
        """``size`` bytes of what is leased: writable, and of any content."""
        if size <= SMALL:
            return np.empty(size, np.uint8)
        block, self._ready = self._ready, None
        if block is None or block.capacity < size:
            block = self._budget.block(size)
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

    def shrink(self, size: int) -> None:
        """Count ``size`` bytes at most, for other things than ``memory``, which is given back.

        The next body is written there, so nothing may be reading or writing it any more.
        """
        for sliding in self._sliding:
            sliding.give_back()
        blocks = self._given if self._ready is None else [*self._given, self._ready]
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
        self._ready = block = self._budget.block(size)
        await block.fault_in(size)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


class _Waiter:
    """A lease that waits for ``size`` bytes more."""

    def __init__(self, lease: Lease, size: int) -> None:
        self.lease = lease
        self.size = size
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.counted = False

    def expire(self) -> None:
        if not self.turn.done():
            self.turn.set_exception(Overloaded(_FULL))


class Budget:
    """``total`` bytes that all requests of a process share; for use on its event loop.

    What does not fit waits for ``wait_seconds`` at most, in order. Leases that grow come before new
    large ones, since what they hold already is only given back once they are done.
    """

    def __init__(self, total: int, wait_seconds: float) -> None:
        self.total = total
        self._reserved = total // _RESERVED
        self._wait_seconds = wait_seconds
        self._small = 0
        self._large = 0
        self._small_waiting: deque[_Waiter] = deque()
        self._growing: deque[_Waiter] = deque()
        self._new: deque[_Waiter] = deque()
        self._openings = asyncio.Semaphore(_OPENINGS)
        self._idle = Idle(total // 2)

    @property
    def leased(self) -> int:
        """Bytes that requests hold."""
        return self._small + self._large

    @property
    def idle(self) -> int:
        """Bytes of memory that are kept for the next bodies; with ``leased`` at most ``total``."""
        return self._idle.size

    @property
    def waiting(self) -> int:
        """Leases that wait."""
        return len(self._small_waiting) + len(self._growing) + len(self._new)

    async def lease(self, size: int, memory: int | None = None) -> Lease:
        """A lease of ``size`` bytes; large ones have ``memory`` ready, or else that much.

        Raises ``TooLarge`` if they could never fit, ``Overloaded`` if they do not fit in time.
        """
        lease = Lease(self)
        try:
            await self.grant(lease, size)
            if size > SMALL:
                # A body is shifted by up to a cache line, to align its first tensor.
                await lease.warm(size + ALIGNMENT if memory is None else memory)
        except BaseException:
            lease.release()
            raise
        return lease

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Lease the beginning of a large body, from which follows what all of it takes.

        Whoever leases that before the end keeps its place among large ones, and nobody waits for
        memory that is held by others who wait for theirs. Raises ``Overloaded`` as ``lease``.
        """
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._openings.acquire()
        except TimeoutError:
            raise Overloaded(_FULL) from None
        try:
            with await self.lease(_OPENING):
                yield
        finally:
            self._openings.release()

    async def grant(self, lease: Lease, size: int) -> None:
        """Count ``size`` bytes more for ``lease`` once they fit."""
        whole = lease.size + size
        small = whole <= SMALL
        queue = self._small_waiting if small else self._growing if lease.size else self._new
        most = self.total if small else self.total - self._reserved
        if whole > most:
            raise TooLarge(
                f"the request takes {whole:,} bytes of memory, and the server has {most:,}",
                where="body",
            )
        held_back = queue or (queue is self._new and self._growing)
        if not held_back and self._fits(lease, size):
            self.count(lease, size)
        else:
            await self._wait(_Waiter(lease, size), queue)

    async def _wait(self, waiter: _Waiter, queue: deque[_Waiter]) -> None:
        timer = waiter.turn.get_loop().call_later(self._wait_seconds, waiter.expire)
        queue.append(waiter)
        try:
            await waiter.turn
        except BaseException:
            if waiter.counted:
                self.count(waiter.lease, -waiter.size)
            elif waiter in queue:
                queue.remove(waiter)
            self._admit()
            raise
        finally:
            timer.cancel()

    def _admit(self) -> None:
        """Give their turn to those who wait, as far as they fit."""
        for queue in (self._growing, self._small_waiting, self._new):
            if queue is self._new and self._growing:
                return
            # One that is done already gave up, and has not got as far as leaving the queue.
            while queue and (queue[0].turn.done() or self._fits(queue[0].lease, queue[0].size)):
                waiter = queue.popleft()
                if not waiter.turn.done():
                    self.count(waiter.lease, waiter.size)
                    waiter.counted = True
                    waiter.turn.set_result(None)

    def _fits(self, lease: Lease, size: int) -> bool:
        if self.leased + size > self.total:
            return False
        whole = lease.size + size
        if whole <= SMALL:
            # Small ones overtake large ones, but cannot keep them out for ever.
            large_wait = self._growing or self._new
            return not large_wait or self._small + size <= self._reserved
        more = size if lease.size > SMALL else whole
        return self._large + more <= self.total - self._reserved

    def count(self, lease: Lease, change: int) -> None:
        """Have ``lease`` hold ``change`` bytes more, which fit, or fewer."""
        before, after = lease.size, lease.size + change
        lease.size = after
        if before > SMALL:
            self._large -= before
        else:
            self._small -= before
        if after > SMALL:
            self._large += after
        else:
            self._small += after
        if change < 0:
            self._admit()
        elif self._idle.size:
            self._idle.trim(self.total - self.leased)

    def block(self, size: int) -> Block:
        """Memory for ``size`` bytes that are counted already, warm if some is idle."""
        return self._idle.take(size)

    def keep(self, block: Block) -> None:
        """Have ``block`` for the next body, as far as there is room."""
        self._idle.keep(block)
        self._idle.trim(self.total - self.leased)
