"""Timing requests: who agrees takes part, in turns; and what the system says of a process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A turn repeats what is faster than this, since a single latency says little; a pause lets the
# threads of whoever was before stop spinning.
_TURN_SECONDS = 0.25
_PAUSE_SECONDS = 0.05
# Of max(1, loss): what float32 sums in any order may differ by.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Contestant:
    """``call`` makes one request; from its answer ``error`` tells how far the loss is off.

    That is relative to max(1, loss), or 0 where there is no loss and all is well.
    """

    call: Callable[[], Any]
    error: Callable[[Any], float]


@dataclass
class Outcome:
    """The seconds of a call, one median for each round; or why there are none."""

    seconds: list[float] = field(default_factory=list)
    refused: str | None = None

    @property
    def median(self) -> float:
        """Seconds; NaN where it was not timed."""
        return statistics.median(self.seconds) if self.seconds else float("nan")


def interleaved(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, Outcome]:
    """Every contestant that agrees, timed in turns."""
    outcomes = {name: Outcome(refused=_refusal(each)) for name, each in contestants.items()}
    timed = {name: each for name, each in contestants.items() if not outcomes[name].refused}
    for _ in range(rounds):
        for name, contestant in timed.items():
            outcomes[name].seconds.append(_turn(contestant.call))
    return outcomes


def _refusal(contestant: Contestant) -> str | None:
    try:
        # The first calls of a server that has just started are slower than any after them.
        for _ in range(3):
            error = contestant.error(contestant.call())
    except Exception as failure:  # a server may fail in any way of its own; the table says how
        first_line = (str(failure).strip() or "no message").splitlines()[0]
        return f"fails with {type(failure).__name__}: {first_line:.200}"
    if not error <= TOLERANCE:
        return f"DISAGREES with float64: {error:.1e} off, {TOLERANCE:.0e} allowed"
    return None


def _turn(call: Callable[[], Any]) -> float:
    """The median of as many calls as fill a turn, but of one at least."""
    time.sleep(_PAUSE_SECONDS)
    seconds: list[float] = []
    end = time.perf_counter() + _TURN_SECONDS
    while (started := time.perf_counter()) < end:
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def memory(process: int, line: str = "VmRSS") -> int:
    """Bytes that Linux tells of a process: "VmRSS" is what it holds, "VmHWM" the most it held."""
    text = Path(f"/proc/{process}/status").read_text()
    [size] = [row for row in text.splitlines() if row.startswith(line)]
    return int(size.split()[1]) * 1024


def forget_peak(process: int) -> None:
    """Set the process's "VmHWM" back to what it holds now."""
    Path(f"/proc/{process}/clear_refs").write_text("5")


def cpu_seconds(process: int) -> float:
    """For how long all threads of a process have run, as Linux counts: ``clock_getcpuclockid``."""
    return time.clock_gettime(~process << 3 | 2)
