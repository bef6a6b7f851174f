"""Memory and CPU time of a process, as Linux counts them."""

from __future__ import annotations

import time
from pathlib import Path


def memory(process: int | str = "self", line: str = "VmRSS") -> int:
    """Bytes that a process holds ("VmRSS"), or the most that it has held ("VmHWM")."""
    text = Path(f"/proc/{process}/status").read_text()
    [size] = [row for row in text.splitlines() if row.startswith(line)]
    return int(size.split()[1]) * 1024


def forget_peak(process: int | str = "self") -> None:
    """Set the process's "VmHWM" back to what it holds now."""
    Path(f"/proc/{process}/clear_refs").write_text("5")


def cpu_seconds(process: int) -> float:
    """CPU seconds of all threads of a process: the clock of ``clock_getcpuclockid``."""
    return time.clock_gettime(~process << 3 | 2)
