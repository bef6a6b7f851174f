"""Description of the machine and of the installed packages, for the heading of a result."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

# Threads of every contestant: those of the smallest machine that results are published for.
THREADS = 2


def machine() -> str:
    """Name the processor, its cores and the threads that each contestant is given."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores, {THREADS} threads each"


def version(distribution: str) -> str | None:
    """The installed version, or ``None`` where the distribution is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions(distributions: Iterable[str]) -> str:
    """List Python's version and those of the ``distributions`` that are installed."""
    found = {name: version(name) for name in distributions}
    installed = [f"{name} {number}" for name, number in found.items() if number]
    return ", ".join([f"Python {platform.python_version()}", *installed])
