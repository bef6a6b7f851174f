"""Warm memory: large blocks whose pages are faulted in before use, and kept for the next use.

The first write to a page costs a fault: 256 MiB take 24 ms in huge pages and 80 to 140 ms in small
ones, more than to receive as much over loopback.
"""

from __future__ import annotations

import asyncio
import mmap
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np

Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

# Bytes of a huge page; larger memory begins at a multiple of it.
HUGE = 2**21
ALIGNMENT = 64  # bytes, of a body's first tensor: a cache line, and the widest vector register
# Bytes faulted in at a time, at most some 30 ms, between which a request can be cancelled.
_STEP = 2**26
# Seconds that an idle block is kept before its pages go back to the system.
_KEPT_SECONDS = 60


class Block:
    """Page-aligned memory for ``size`` bytes, of which the first ``warm`` are faulted in."""

    def __init__(self, size: int) -> None:
        self.capacity = _whole_pages(size)
        self.warm = 0
        self._map, self._start = mapped(self.capacity)
        # Whole huge pages only: 8 MiB and 64 bytes would end in 2 MiB that no lease counts.
        huge = self.capacity // HUGE * HUGE
        # macOS and some sandboxes have no huge pages.
        with suppress(AttributeError, OSError):
            self._map.madvise(mmap.MADV_HUGEPAGE, self._start, huge)
        self.bytes: Bytes = np.frombuffer(self._map, np.uint8, self.capacity, self._start)

    async def fault_in(self, size: int) -> None:
        """Fault in pages until ``size`` bytes are warm, in a thread of the loop's executor."""
        loop = asyncio.get_running_loop()
        while self.warm < size:
            end = min(self.warm + _STEP, _whole_pages(size))
            await loop.run_in_executor(None, _touch, self.bytes[self.warm : end])
            self.warm = end

    def cool(self, size: int) -> None:
        """Return the pages after the first ``size`` bytes to the system."""
        kept = _whole_pages(size)
        if self.warm > kept:
            self._map.madvise(mmap.MADV_DONTNEED, self._start + kept, self.warm - kept)
            self.warm = kept


def mapped(size: int, flags: int = 0) -> tuple[mmap.mmap, int]:
    """Map memory for ``size`` bytes; returns it and the offset at which they begin.

    That is at a huge page where ``size`` is at least HUGE. ``flags`` are added to those of private
    anonymous memory. Raises ``MemoryError``.
    """
    spare = HUGE if size >= HUGE else 0
    flags |= mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        memory = mmap.mmap(-1, size + spare, flags=flags)
    except (OSError, OverflowError) as error:
        raise MemoryError from error
    return memory, -np.frombuffer(memory, np.uint8).ctypes.data % HUGE if spare else 0


class Idle:
    """Pool of blocks between uses: ``size`` warm bytes in all, at most ``most``."""

    def __init__(self, most: int) -> None:
        self.size = 0
        self._most = most
        # The longest idle first.
        self._blocks: dict[Block, asyncio.TimerHandle] = {}

    def take(self, size: int) -> Block:
        """Take a block of at most ``size`` warm bytes: the best fit, or a new one.

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
        """Add ``block`` to the pool, for 60 s at most; ``trim`` enforces the size."""
        loop = asyncio.get_running_loop()
        self._blocks[block] = loop.call_later(_KEPT_SECONDS, self._forget, block)
        self.size += block.warm

    def trim(self, most: int) -> None:
        """Free warm bytes, of the longest idle blocks first, down to ``most`` at most."""
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
    # NumPy releases the GIL for large assignments.
    memory[:: mmap.PAGESIZE] = 0
