"""What is printed: a table for each case, and the one for the README."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

import numba

from benchmarks.kernel.cases import TOLERANCE, Case
from benchmarks.kernel.contestants import CONTESTANTS, EAGER, OURS, PEERS, READ, THREADS
from benchmarks.kernel.measure import Outcome, Outcomes

Results = Mapping[Case, Outcomes]


def speed_of(case: Case, outcome: Outcome) -> str:
    """GB/s of logits, or microseconds for a latency."""
    if case.latency:
        return f"{outcome.median * 1e6:.1f} us"
    return f"{case.nbytes / outcome.median / 1e9:.2f} GB/s"


def times_as_fast(outcomes: Outcomes, name: str) -> float:
    """How many times as fast as ``name`` ours is; NaN where either was not timed."""
    if OURS.name not in outcomes or name not in outcomes:
        return math.nan
    return outcomes[name].median / outcomes[OURS.name].median


def best_peer(outcomes: Outcomes) -> str | None:
    """The name of the fastest peer that was timed."""
    timed = [peer.name for peer in PEERS if outcomes.get(peer.name, Outcome()).seconds]
    return min(timed, key=lambda name: outcomes[name].median, default=None)


def case_table(case: Case, outcomes: Outcomes) -> list[str]:
    """One case: what each contestant did."""
    allowed = TOLERANCE[case.dtype]
    logits = f"{case.nbytes / 1e6:.1f} MB of logits" if case.nbytes > 1e4 else "call to result"
    lines = [f"{case.name}  ({logits}; within {allowed:.0e} of float64)"]
    lines.append(
        f"  {'':<14}{'speed':>14}{'lossd is':>12}{'slowest':>10}{'error':>10}"
        f"{'worst loss':>12}{'peak MB':>10}"
    )
    for name, outcome in outcomes.items():
        if outcome.refused is not None:
            lines.append(f"  {name:<14}{'-':>14}  {outcome.refused}")
            continue
        ratio = f"{times_as_fast(outcomes, name):.2f} x"
        slowest = f"{max(outcome.seconds) / outcome.median:.2f} x"
        lines.append(
            f"  {name:<14}{speed_of(case, outcome):>14}{ratio:>12}{slowest:>10}"
            f"{_power(outcome.error):>10}{_power(outcome.element_error):>12}"
            f"{'' if outcome.peak is None else f'{outcome.peak / 1e6:.1f}':>10}"
        )
    return lines


def _power(number: float | None) -> str:
    return "" if number is None else f"{number:.1e}"


def machine() -> str:
    """The processor, and how many threads everyone was given."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores, {THREADS} threads each"


def versions() -> str:
    """What was compared, as installed."""
    seen = {each.distribution: each.version() for each in CONTESTANTS}
    installed = [f"{name} {version}" for name, version in seen.items() if version]
    return ", ".join([f"Python {platform.python_version()}", *installed])


def heading(rounds: int) -> list[str]:
    """What the tables have in common."""
    return [
        f"{machine()}; {date.today().isoformat()}",
        versions(),
        f"medians of {rounds} interleaved rounds; Numba's threads by {numba.threading_layer()}",
        '"lossd is": times as fast; "slowest": the slowest round against the median; "error": the',
        "result's against float64, \"worst loss\": the worst single one's, both relative to",
        'max(1, loss); "peak MB": what the process grows by in a call',
    ]


def markdown(results: Results) -> list[str]:
    """The README's table: ratios first."""
    rows: list[Sequence[str]] = [
        ("logits", "of a plain read", "best peer", "eager PyTorch", "lossd"),
        ("---", "--:", "--:", "--:", "--:"),
    ]
    for case, outcomes in results.items():
        best = best_peer(outcomes)
        peer = f"{_ratio(times_as_fast(outcomes, best))} ({best})" if best else ""
        ours = outcomes.get(OURS.name, Outcome())
        rows.append(
            (
                case.name,
                _ratio(times_as_fast(outcomes, READ.name)),
                peer,
                _ratio(times_as_fast(outcomes, EAGER.name)),
                speed_of(case, ours) if ours.seconds else "not timed",
            )
        )
    return [*_joined(rows), "", f"{machine()}; {date.today().isoformat()}; {versions()}."]


def _ratio(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.{2 if number < 2 else 1}f}x"


def _joined(rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in rows]
