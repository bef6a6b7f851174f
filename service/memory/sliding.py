"""Sliding memory: addresses for a whole body, and pages for a part of it at a time.

Pages that have been read for the last time are moved, by mremap, to the addresses that the body
reaches next. That takes 5 us for 2 MiB: nothing is copied, zeroed or faulted in, and the pages are
still in cache. It needs Linux 5.7, and no sandbox that forbids it. Two fixed buffers in its place
were tried, and took more CPU: docs/adr/0050-sliding-memory.md.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

import numpy as np

from service.memory.pages import HUGE, Block, Bytes, mapped

# MREMAP_MAYMOVE, MREMAP_FIXED and MREMAP_DONTUNMAP: the old addresses stay reserved, without pages,
# so that nothing else is mapped there, and a stray read finds zeros.
_MOVE = 1 | 2 | 4
_MAP_FIXED, _MAP_NORESERVE = 0x10, 0x4000
_RESERVED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE


class Sliding:
    """Addresses for ``size`` bytes, backed only by the memory that ``hold`` moves there.

    ``end``: end of that memory, in bytes from the first address. Raises ``MemoryError``. Methods
    are for one thread; other threads may read and write the held bytes meanwhile.
    """

    def __init__(self, size: int) -> None:
        # MAP_NORESERVE: the system counts pages, not addresses.
        self.bytes = _addresses(whole_pieces(size), _MAP_NORESERVE)
        self._address = self.bytes.ctypes.data
        self._block: Block | None = None
        self._kept = self._first = self.end = 0

    def hold(self, block: Block, kept: int, size: int) -> None:
        """Move the first ``size`` bytes of ``block`` to the first addresses.

        The first ``kept`` bytes stay there, the others slide. Both are multiples of HUGE. Raises
        ``MemoryError``.
        """
        source = block.bytes.ctypes.data
        for at in range(0, size, HUGE):
            _move(source + at, self._address + at)
        self._block, self._kept, self._first, self.end = block, kept, kept, size

    def slide(self, done: int) -> None:
        """Move the memory of bytes before ``done`` to its end. Raises ``MemoryError``."""
        while self._block and self._first + HUGE <= done and self.end < self.bytes.size:
            _move(self._address + self._first, self._address + self.end)
            self._first += HUGE
            self.end += HUGE

    def give_back(self) -> None:
        """Move the memory back into its block; where the system refuses, the block keeps less."""
        block, self._block = self._block, None
        if block is None:
            return
        target = block.bytes.ctypes.data
        block.warm = 0
        for at in (*range(0, self._kept, HUGE), *range(self._first, self.end, HUGE)):
            try:
                _move(self._address + at, target + block.warm)
            except MemoryError:
                return
            block.warm += HUGE


@cache
def available() -> bool:
    """Return whether this system moves pages; tried once a process."""
    if sys.platform != "linux" or not hasattr(_libc(), "mremap"):
        return False
    source, target = _addresses(HUGE), _addresses(HUGE)
    source[:1] = 1
    try:
        _move(source.ctypes.data, target.ctypes.data)
    except MemoryError:
        return False
    return bool(target[0] == 1 and source[0] == 0)


def whole_pieces(size: int) -> int:
    """Round ``size`` up to a multiple of HUGE."""
    return -(-size // HUGE) * HUGE


def _addresses(size: int, flags: int = 0) -> Bytes:
    memory, start = mapped(size, flags)
    return np.frombuffer(memory, np.uint8, size, start)


def _move(source: int, target: int) -> None:
    """Move HUGE bytes of pages to ``target``, replacing its mapping. Raises ``MemoryError``."""
    libc = _libc()
    if libc.mremap(source, HUGE, HUGE, _MOVE, target) != target:
        # A failed mremap may have unmapped the target: reserve it again.
        libc.mmap(target, HUGE, mmap.PROT_READ | mmap.PROT_WRITE, _RESERVED, -1, 0)
        raise MemoryError("the system moves no more pages")


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None)
    address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    if hasattr(libc, "mremap"):
        libc.mremap.argtypes = (address, size, size, number, address)
        libc.mremap.restype = address
        libc.mmap.argtypes = (address, size, number, number, number, ctypes.c_ssize_t)
        libc.mmap.restype = address
    return libc
