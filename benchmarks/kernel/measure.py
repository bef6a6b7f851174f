"""Timing one case: who agrees with float64 takes part, in turns, in this one process."""

from __future__ import annotations

import gc
import math
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kernels
from benchmarks.kernel.cases import TOLERANCE, Case, Data, data_for
from benchmarks.kernel.contestants import CannotRun, Contestant, Entry

# A turn repeats what is faster than this. A pause lets the threads of whoever was before stop
# spinning; an untimed call then brings the caller's own threads, and what fits, back to the caches.
_TURN_SECONDS = 0.03
_PAUSE_SECONDS = 0.02
# glibc maps and unmaps larger blocks one by one, and may keep smaller ones for the next call.
_ALWAYS_FRESH = 2**25
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass
class Outcome:
    """What one contestant did at one case.

    ``refused`` says why it was not timed. ``seconds`` are those of one call in each round,
    ``error`` is its result's as ``Entry.error`` says, ``element_error`` the worst single loss's,
    ``peak`` the most bytes that the process grew by in a call: all ``None`` where not known.
    """

    refused: str | None = None
    seconds: list[float] = field(default_factory=list)
    error: float | None = None
    element_error: float | None = None
    peak: int | None = None

    @property
    def median(self) -> float:
        """Seconds a call; NaN where it was not timed."""
        return statistics.median(self.seconds) if self.seconds else math.nan


Outcomes = dict[str, Outcome]


def run_case(case: Case, contestants: Iterable[Contestant], rounds: int) -> Outcomes:
    """All contestants at one case, by name."""
    data = data_for(case)
    outcomes: Outcomes = {}
    entries: dict[str, Entry] = {}
    for contestant in contestants:
        outcomes[contestant.name], entry = admit(contestant, data)
        if entry is not None:
            entries[contestant.name] = entry
    for _ in range(rounds):
        for name, entry in entries.items():
            outcomes[name].seconds.append(_turn(entry.call))
    return outcomes


def admit(contestant: Contestant, data: Data) -> tuple[Outcome, Entry | None]:
    """The contestant's entry, if it is installed, runs and agrees with float64."""
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
    except Exception as failure:  # a peer may fail in any way of its own; the table says how
        first_line = (str(failure).strip() or "no message").splitlines()[0]
        return Outcome(f"fails with {type(failure).__name__}: {first_line:.100}"), None
    tolerance = TOLERANCE[data.case.dtype]
    if not error <= tolerance:
        outcome.refused = f"DISAGREES with float64: {error:.1e} off, {tolerance:.0e} allowed"
        return outcome, None
    return outcome, entry


def _turn(call: Callable[[], Any]) -> float:
    """Seconds a call, over as many as fill a turn."""
    time.sleep(_PAUSE_SECONDS)
    collecting = gc.isenabled()
    gc.disable()
    try:
        started = time.perf_counter()
        call()
        once = time.perf_counter() - started
        count = min(max(1, round(_TURN_SECONDS / once)), 10_000)
        started = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - started) / count
    finally:
        if collecting:
            gc.enable()


def _memory(line: str) -> int:
    """Bytes that Linux tells of this process: "VmRSS" is what it holds, "VmHWM" the most."""
    [size] = [row for row in _STATUS.read_text().splitlines() if row.startswith(line)]
    return int(size.split()[1]) * 1024


def _peak(call: Callable[[], Any]) -> int | None:
    """The most bytes that the process grows by in a call; its result is among them.

    Told from the system's high-water mark, which only Linux can set back. What an allocator had
    kept from earlier calls is not seen, so it is told for large cases only (``_ALWAYS_FRESH``).
    """
    try:
        _CLEAR.write_text("5")
        before = _memory("VmRSS")
        call()
        return max(0, _memory("VmHWM") - before)
    except (OSError, ValueError):
        return None


def temporaries(case: Case) -> tuple[int, float]:
    """What ours allocates for a loss: the most bytes at once, and how many of them a logit.

    The latter is by how much the former grows with the number of classes, to the hundredth of a
    byte: a few hundred bytes of Python's come and go.
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
