"""Timing of requests: contestants whose answers agree with float64, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.problems import TOLERANCE
from kernels.dtypes import FLOAT32

# A turn repeats requests that are faster than this: a single latency is noise. The pause lets the
# previous contestant's threads stop spinning.
_TURN_SECONDS = 0.25
_PAUSE_SECONDS = 0.05
# All requests hold float32: relative to max(1, loss).
_TOLERANCE = TOLERANCE[FLOAT32]


@dataclass(frozen=True)
class Contestant:
    """A server and a request: ``call`` makes the request, ``error`` measures its answer.

    The error is relative to max(1, loss); it is 0 for a right answer that holds no loss.
    """

    call: Callable[[], Any]
    error: Callable[[Any], float]


@dataclass
class Outcome:
    """Seconds of a call, a median a round; or the reason why it was ``refused``."""

    seconds: list[float] = field(default_factory=list)
    refused: str | None = None

    @property
    def median(self) -> float:
        """Median of the rounds, in seconds; NaN where it was not timed."""
        return statistics.median(self.seconds) if self.seconds else float("nan")


def interleaved(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, Outcome]:
    """Time, in turns, every contestant whose answers agree."""
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
    except Exception as failure:  # a server may fail in any way; the table shows it
        first_line = (str(failure).strip() or "no message").splitlines()[0]
        return f"fails with {type(failure).__name__}: {first_line:.200}"
    if not error <= _TOLERANCE:
        return f"DISAGREES with float64: {error:.1e} off, {_TOLERANCE:.0e} allowed"
    return None


def _turn(call: Callable[[], Any]) -> float:
    """Median of the seconds of as many calls as fill a turn, at least one."""
    time.sleep(_PAUSE_SECONDS)
    seconds: list[float] = []
    end = time.perf_counter() + _TURN_SECONDS
    while (started := time.perf_counter()) < end:
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
