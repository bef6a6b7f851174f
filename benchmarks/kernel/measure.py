"""Timing of one case: contestants that agree with float64, in turns, in this process."""

from __future__ import annotations

import functools
import gc
import math
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import kernels
from benchmarks.kernel.contestants import CannotRun, Contestant, Entry
from benchmarks.kernel.undisturbed import Pace
from benchmarks.problems import TOLERANCE, Case, Data, data_for
from benchmarks.processes import forget_peak, memory

# A turn repeats calls that are faster than this. Before it, the last turn's threads come to rest:
# onnxruntime's spin for 35 ms after a call, OpenMP's for 8, and 2048x1000 took up to 20 times as
# long beside them. Untimed calls then warm threads and caches: a thread that was asleep may share a
# core with the one that woke it for 8 ms, and a call of 25 us took 4 ms meanwhile.
_TURN_SECONDS = 0.03
_WARM_SECONDS = 0.02
# Seconds of a look at the process's CPU time, the share of them that is rest, and looks at most.
_LOOK_SECONDS, _REST, _LOOKS = 0.02, 0.05, 50
# glibc maps and unmaps larger blocks one by one, and may keep smaller ones for the next call.
_ALWAYS_FRESH = 2**25


@dataclass
class Outcome:
    """Results of one contestant at one case.

    ``refused``: the reason why it was not timed. ``seconds``: of one call, a number a round.
    ``error``: as ``Entry.error``; ``element_error``: of the worst single loss; ``peak``: bytes that
    the process grew by in a call. ``None`` where not known.
    """

    refused: str | None = None
    seconds: list[float] = field(default_factory=list)
    error: float | None = None
    element_error: float | None = None
    peak: int | None = None

    @property
    def median(self) -> float:
        """Median of the seconds of a call; NaN where it was not timed."""
        return statistics.median(self.seconds) if self.seconds else math.nan


Outcomes = dict[str, Outcome]


def run_case(case: Case, contestants: Iterable[Contestant], rounds: int, pace: Pace) -> Outcomes:
    """Time all contestants at one case, in turns that count by ``pace``; outcomes by name."""
    data = data_for(case)
    outcomes: Outcomes = {}
    entries: dict[str, Entry] = {}
    for contestant in contestants:
        outcomes[contestant.name], entry = admit(contestant, data)
        if entry is not None:
            entries[contestant.name] = entry
    _await_rest()
    for _ in range(rounds):
        for name, entry in entries.items():
            seconds = pace.counted(functools.partial(_turn, entry.call), _await_rest)
            outcomes[name].seconds.append(seconds / entry.times)
    return outcomes


def admit(contestant: Contestant, data: Data) -> tuple[Outcome, Entry | None]:
    """Prepare a contestant; no entry where it is missing, fails or disagrees with float64."""
    if contestant.version() is None:
        return Outcome(f"{contestant.distribution} is not installed"), None
    try:
        entry = contestant.enter(data)
        error = entry.error(entry.call())
        outcome = Outcome(error=error)
        if entry.per_element is not None:
            outcome.element_error = data.per_element_error(entry.per_element())
        if data.logits.nbytes > _ALWAYS_FRESH:
            entry.release()
            outcome.peak = _peak(entry.call)
    except CannotRun as reason:
        return Outcome(str(reason)), None
    except Exception as failure:  # a library may raise anything; the table shows it
        first_line = (str(failure).strip() or "no message").splitlines()[0]
        return Outcome(f"fails with {type(failure).__name__}: {first_line:.100}"), None
    tolerance = TOLERANCE[data.case.dtype]
    if not error <= tolerance:
        outcome.refused = f"DISAGREES with float64: {error:.1e} off, {tolerance:.0e} allowed"
        return outcome, None
    return outcome, entry


def _turn(call: Callable[[], Any]) -> float:
    """Seconds of a call: the mean of as many as fill a turn."""
    _await_rest()
    collecting = gc.isenabled()
    gc.disable()
    try:
        started = before = time.perf_counter()
        while before - started < _WARM_SECONDS:
            last = before
            call()
            before = time.perf_counter()
        count = min(max(1, round(_TURN_SECONDS / (before - last))), 10_000)
        started = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - started) / count
    finally:
        if collecting:
            gc.enable()


def _await_rest() -> None:
    """Wait until no thread of this process runs."""
    for _ in range(_LOOKS):
        used = time.process_time()
        time.sleep(_LOOK_SECONDS)
        if time.process_time() - used < _REST * _LOOK_SECONDS:
            return


def _peak(call: Callable[[], Any]) -> int | None:
    """Bytes that the process grows by in a call, its result included, or ``None``.

    Read from the high-water mark, which only Linux can reset. Memory that an allocator kept from
    earlier calls is not seen, so this is measured for large cases only (``_ALWAYS_FRESH``).
    """
    try:
        forget_peak()
        before = memory()
        call()
        return max(0, memory(line="VmHWM") - before)
    except (OSError, ValueError):
        return None


def temporaries(case: Case) -> tuple[int, float]:
    """Bytes that our loss allocates at most at once, and how many of them a logit.

    The second is the growth of the first with the number of classes, rounded to 0.01: Python
    itself allocates a few hundred bytes.
    """
    half = Case((case.shape[0], case.shape[1] // 2), case.dtype)
    most, least = (_traced(data_for(size)) for size in (case, half))
    return most, round(max(0, most - least) / (case.shape[0] * half.shape[1]), 2)


def _traced(data: Data) -> int:
    kernels.cross_entropy(data.logits, data.labels)
    tracemalloc.start()
    try:
        kernels.cross_entropy(data.logits, data.labels)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
