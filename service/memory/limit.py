"""How much memory this process may use: what its control groups allow, or what the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_MIB = 2**20
# Of a worker that computes nothing: Python, Numba's compiler and the compiled kernels.
_BASE = 256 * _MIB
_LEAST = 64 * _MIB


def default_budget(workers: int) -> int:
    """Bytes that the requests of each of ``workers`` processes may hold, all together.

    Three quarters of the memory, without what the workers take for themselves: the rest is for the
    system's socket buffers, for scratch memory and for whatever else runs here.
    """
    return max(memory_limit() * 3 // 4 // workers - _BASE, _LEAST)


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use; ``root`` is where ``proc`` and ``sys`` are."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_group_limits(root)])


def _group_limits(root: Path) -> Iterator[int]:
    """The limits of every control group (versions 1 and 2) that this process is in."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            mount, name = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
            top = root / "sys/fs/cgroup" / mount
            group = top / path.lstrip("/")
            # In a container the path may be the host's, and only its top is there.
            for folder in (group, *group.parents):
                text = _text(folder / name).strip()
                if text.isdecimal():
                    yield int(text)
                if folder == top:
                    break


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
