"""Memory limit of this process: that of its control groups, or the machine's memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from service import cgroups

_FILES = cgroups.Files("memory", ("memory.limit_in_bytes",), ("memory.max",))
_MIB = 2**20
# Bytes of an idle worker: Python, Numba's compiler and the compiled kernels.
_BASE = 256 * _MIB
_LEAST = 64 * _MIB


def default_budget(workers: int) -> int:
    """Default budget in bytes for the requests of each of ``workers`` processes.

    Three quarters of the memory, shared among the workers, less what an idle worker takes. The rest
    is for socket buffers, scratch memory and other processes.
    """
    return max(memory_limit() * 3 // 4 // workers - _BASE, _LEAST)


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use; ``root`` is the parent of ``proc`` and ``sys``."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_group_limits(root)])


def _group_limits(root: Path) -> Iterator[int]:
    for (text,) in cgroups.limits(_FILES, root):
        if text.isdecimal():  # "max" where there is none
            yield int(text)
