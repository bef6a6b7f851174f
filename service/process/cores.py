"""Cores that this process may use: those of its affinity, within the CPU quota of its container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from service import cgroups

_FILES = cgroups.Files("cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us"), ("cpu.max",))


def available(root: Path = Path("/")) -> int:
    """Whole cores of the affinity and of every CPU quota (``limits.cpu``), at least 1.

    With more threads than that, the system stops all of them for the rest of each period (0.1 s)
    once the quota is used up. A quota of 2.5 is 2: the event loop needs the rest. ``root`` is the
    parent of ``proc`` and ``sys``.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS, nor on Windows
    present = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([present, *_quotas(root)]))


def _quotas(root: Path) -> Iterator[int]:
    for texts in cgroups.limits(_FILES, root):
        # "200000 100000", in one file or in two; "max" or "-1" where there is no quota.
        quota, _, period = " ".join(texts).partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) // int(period)
