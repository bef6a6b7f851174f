"""Large memory whose pages are there before it is used, and is kept for the next use.

A fresh page costs a fault when it is first written: 256 MiB take 24 ms in huge pages and 80 to
140 ms in small ones, more than receiving as much over loopback.
"""

from __future__ import annotations

import asyncio
import mmap
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np

Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

# Bytes of a huge page; memory of at least as much begins at one.
HUGE = 2**21
ALIGNMENT = 64  # bytes, of a body's first tensor: a cache line, and the widest vector register
# Bytes faulted in at a time, between which a request can be cancelled: at most some 30 ms.
_STEP = 2**26
# Seconds that memory is kept for the next body before its pages go back to the system.
_KEPT_SECONDS = 60


class Block:
    """Page-aligned memory with room for ``size`` bytes; the first ``warm`` have their pages."""

    def __init__(self, size: int) -> None:
        self.capacity = _whole_pages(size)
        self.warm = 0
        self._map, self._start = mapped(self.capacity)
        # Whole ones only: the last of 8 MiB and 64 bytes would be 2 MiB that nobody counted.
        huge = self.capacity // HUGE * HUGE
        # Not on macOS, nor in every sandbox: then pages are small.
        with suppress(AttributeError, OSError):
            self._map.madvise(mmap.MADV_HUGEPAGE, self._start, huge)
        self.bytes: Bytes = np.frombuffer(self._map, np.uint8, self.capacity, self._start)

    async def fault_in(self, size: int) -> None:
        """Have at least ``size`` bytes warm; other threads do the work."""
        loop = asyncio.get_running_loop()
        while self.warm < size:
            end = min(self.warm + _STEP, _whole_pages(size))
            await loop.run_in_executor(None, _touch, self.bytes[self.warm : end])
            self.warm = end

    def cool(self, size: int) -> None:
        """Give the pages after the first ``size`` bytes back to the system."""
        kept = _whole_pages(size)
        if self.warm > kept:
            self._map.madvise(mmap.MADV_DONTNEED, self._start + kept, self.warm - kept)
            self.warm = kept


def mapped(size: int, flags: int = 0) -> tuple[mmap.mmap, int]:
    """Fresh memory, and where in it ``size`` bytes begin that huge pages fit, if so many.

    ``flags`` are mmap's, besides those of private anonymous memory. Raises ``MemoryError``.
    """
    spare = HUGE if size >= HUGE else 0
    flags |= mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        memory = mmap.mmap(-1, size + spare, flags=flags)
    except (OSError, OverflowError) as error:
        raise MemoryError from error
    return memory, -np.frombuffer(memory, np.uint8).ctypes.data % HUGE if spare else 0


class Idle:
    """Blocks that wait for their next use; ``size`` is how many bytes of them are warm."""

    def __init__(self, most: int) -> None:
        self.size = 0
        self._most = most
        # The longest idle first.
        self._blocks: dict[Block, asyncio.TimerHandle] = {}

    def take(self, size: int) -> Block:
        """A block for ``size`` bytes, no more of them warm: the one that fits best, or a new one.

        Raises ``MemoryError``.
        """
        fits = [block for block in self._blocks if block.capacity >= size]
        if not fits:
            return Block(size)
        block = min(fits, key=lambda block: abs(block.warm - size))
        self._forget(block)
        block.cool(size)
        return block

    def keep(self, block: Block) -> None:
        """Have ``block`` for later. The oldest blocks go where these are too many."""
        loop = asyncio.get_running_loop()
        self._blocks[block] = loop.call_later(_KEPT_SECONDS, self._forget, block)
        self.size += block.warm

    def trim(self, most: int) -> None:
        """Hold no more than ``most`` bytes, nor more than at any time."""
        most = min(most, self._most)
        while self.size > most:
            block = next(iter(self._blocks))
            excess = self.size - most
            if block.warm <= excess:
                self._forget(block)
            else:
                self.size -= block.warm
                block.cool((block.warm - excess) // mmap.PAGESIZE * mmap.PAGESIZE)
                self.size += block.warm

    def _forget(self, block: Block) -> None:
        self._blocks.pop(block).cancel()
        self.size -= block.warm


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _touch(memory: Bytes) -> None:
    # NumPy lets go of the GIL for as many writes as these.
    memory[:: mmap.PAGESIZE] = 0
