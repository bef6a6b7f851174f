"""Tables of the results: one a case, and a summary in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import numba

from benchmarks.kernel.contestants import CONTESTANTS, EAGER, OURS, PEERS, READ
from benchmarks.kernel.measure import Outcome, Outcomes
from benchmarks.machine import machine
from benchmarks.machine import versions as installed
from benchmarks.problems import TOLERANCE, Case

Results = Mapping[Case, Outcomes]


def speed_of(case: Case, outcome: Outcome) -> str:
    """Speed in GB/s of logits, or in microseconds for a latency."""
    if case.latency:
        return f"{outcome.median * 1e6:.1f} us"
    return f"{case.nbytes / outcome.median / 1e9:.2f} GB/s"


def times_as_fast(outcomes: Outcomes, name: str) -> float:
    """Our speed relative to that of ``name``; NaN where either was not timed."""
    if OURS.name not in outcomes or name not in outcomes:
        return math.nan
    return outcomes[name].median / outcomes[OURS.name].median


def best_peer(outcomes: Outcomes) -> str | None:
    """Name of the fastest peer that was timed."""
    timed = [peer.name for peer in PEERS if outcomes.get(peer.name, Outcome()).seconds]
    return min(timed, key=lambda name: outcomes[name].median, default=None)


def case_table(case: Case, outcomes: Outcomes) -> list[str]:
    """Table of one case: a line a contestant."""
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


def versions() -> str:
    """Versions of what was compared."""
    return installed(each.distribution for each in CONTESTANTS)


def heading(rounds: int) -> list[str]:
    """Lines that explain the tables: machine, versions, columns."""
    return [
        f"{machine()}; {date.today().isoformat()}",
        versions(),
        f"medians of {rounds} interleaved rounds; Numba's threads by {numba.threading_layer()}",
        '"lossd is": times as fast; "slowest": the slowest round against the median; "error": the',
        "result's against float64, \"worst loss\": the worst single one's, both relative to",
        'max(1, loss); "peak MB": what the process grows by in a call',
    ]


def markdown(results: Results) -> list[str]:
    """Summary in Markdown: a line a case, ratios first."""
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
