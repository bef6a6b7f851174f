"""Ranges of a local file, mapped into memory, whose pages are there before anything reads them."""

from __future__ import annotations

import ctypes
import errno
import mmap
import sys
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from service.errors import DecodeError

# Linux's MADV_POPULATE_READ: all pages of a range at once. It answers with an error where touching
# the page would end the process: on a failing disk, or in a file that was cut.
_POPULATE = 22
# Linux's MADV_HUGEPAGE, for ranges of a huge page and more: what is not in memory yet is read into
# huge pages where the file system can. Of 64 MiB, mapping these anew takes 0.04 ms, not 0.9, and
# 0.15 ms where the range does not begin and end with one.
_HUGE_PAGES, _HUGE_BYTES = 14, 1 << 21
_GONE = (errno.EFAULT, errno.EIO, 133)  # 133: EHWPOISON, which macOS has not
# Number of Linux's cachestat (6.5), the same on all machines.
_CACHESTAT = 451
# Bytes that a fault maps beside the one touched, where they are in the page cache: Linux's
# fault_around_bytes. Of 256 MiB in pages of 4 KiB, to touch each takes 4.1 ms, MADV_POPULATE_READ
# 8.1, and to count the pages in the cache 0.34 (Linux 6.18).
_AROUND = 1 << 16


def mapped(descriptor: int, first: int, stop: int, size: int) -> memoryview:
    """Bytes [first, stop) of an open file of ``size``, all in memory.

    Raises ``DecodeError`` where they cannot be read, and ``ValueError`` where the file is shorter.
    """
    huge = stop - first >= _HUGE_BYTES
    page = _HUGE_BYTES if huge else mmap.ALLOCATIONGRANULARITY
    start = first - first % page
    end = min(stop + -stop % page, size) if huge else stop
    memory = mmap.mmap(descriptor, end - start, access=mmap.ACCESS_READ, offset=start)
    try:
        if huge:
            with suppress(OSError):  # kernels without them
                memory.madvise(_HUGE_PAGES)
        if in_cache(descriptor, start, end):
            np.frombuffer(memory, np.uint8)[::_AROUND].max()
        else:
            memory.madvise(_POPULATE)
    except OSError as error:
        # Before Linux 5.14 it is unknown: pages come as they are touched.
        if error.errno != errno.EINVAL:
            if error.errno not in _GONE:
                raise
            raise DecodeError(
                f"bytes {first:,} to {stop:,} cannot be read: the disk fails, or the file was cut "
                "meanwhile"
            ) from None
    return memoryview(memory)[first - start : stop - start]


def lazily(descriptor: int, first: int, stop: int) -> memoryview:
    """Bytes [first, stop) of an open file, whose pages come as they are touched.

    Raises ``ValueError`` where the file is shorter.
    """
    start = first - first % mmap.ALLOCATIONGRANULARITY
    memory = mmap.mmap(descriptor, stop - start, access=mmap.ACCESS_READ, offset=start)
    return memoryview(memory)[first - start :]


def in_cache(descriptor: int, start: int, end: int) -> bool:
    """Return True if all pages of [start, end) are known to be in the page cache."""
    count = _counter()
    if count is None:
        return False
    found = (ctypes.c_uint64 * 5)()  # pages in the cache, dirty, written back, and two of evicted
    asked = (ctypes.c_uint64 * 2)(start, end - start)
    if count(_CACHESTAT, descriptor, asked, found, 0):
        return False  # before Linux 6.5, or where a sandbox refuses it
    return found[0] >= -(-end // mmap.PAGESIZE) - start // mmap.PAGESIZE


@cache
def _counter() -> Any:
    """The C library's ``syscall``; None on other systems than Linux."""
    if sys.platform != "linux":
        return None
    syscall = ctypes.CDLL(None).syscall
    syscall.argtypes = ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint
    syscall.restype = ctypes.c_long
    return syscall
