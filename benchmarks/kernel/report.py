"""Tables of the results: one a case, and a summary in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import numba

from benchmarks.kernel.contestants import (
    CONTESTANTS,
    EAGER,
    EXPONENTIALS,
    OURS,
    PEERS,
    READ,
)
from benchmarks.kernel.measure import Outcome, Outcomes
from benchmarks.kernel.undisturbed import Pace
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


def limit_of(outcomes: Outcomes) -> float:
    """Least seconds of a case on this machine, in this run; NaN where not measured.

    That is the larger of two: a plain parallel read of its bytes in the place where they are
    (logits and labels; what is written counts as read), and its exponentials in L1.
    """
    return max(
        (outcomes.get(each.name, Outcome()).median for each in (READ, EXPONENTIALS)),
        key=lambda seconds: (math.isnan(seconds), seconds),
    )


def share_of_limit(outcomes: Outcomes) -> float:
    """Share of ``limit_of`` that we reach; NaN where either was not measured."""
    return limit_of(outcomes) / outcomes.get(OURS.name, Outcome()).median


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
    share = share_of_limit(outcomes)
    if not math.isnan(share):
        lines.append(f"  limit {limit_of(outcomes) * 1e3:.4f} ms, share of it {share:.2f}")
    return lines


def _power(number: float | None) -> str:
    return "" if number is None else f"{number:.1e}"


def versions() -> str:
    """Versions of what was compared."""
    return installed(each.distribution for each in CONTESTANTS)


def heading(rounds: int, pace: Pace) -> list[str]:
    """Lines that explain the tables: machine, versions, columns."""
    return [
        f"{machine()}; {date.today().isoformat()}",
        versions(),
        f"medians of {rounds} interleaved rounds; Numba's threads by {numba.threading_layer()}",
        f"turns that other work slowed: {pace.repeated} repeated, {pace.slowed} kept (no time)",
        '"lossd is": times as fast; "slowest": the slowest round against the median; "error": the',
        "result's against float64, \"worst loss\": the worst single one's, both relative to",
        'max(1, loss); "peak MB": what the process grows by in a call; "limit": the larger of a',
        "plain parallel read of logits and labels where they are, and of the exponentials in L1;",
        'a gradient is written to one array at each call (out=), but a new one by "lossd, plain"',
    ]


def markdown(results: Results) -> list[str]:
    """Summary in Markdown: a line a case, ratios first."""
    rows: list[Sequence[str]] = [
        ("logits", "of the limit", "limit, ms", "best peer", "eager PyTorch", "lossd"),
        ("---", "--:", "--:", "--:", "--:", "--:"),
    ]
    for case, outcomes in results.items():
        best = best_peer(outcomes)
        peer = f"{_ratio(times_as_fast(outcomes, best))} ({best})" if best else ""
        ours = outcomes.get(OURS.name, Outcome())
        rows.append(
            (
                case.name,
                _share(share_of_limit(outcomes)),
                _milliseconds(limit_of(outcomes)),
                peer,
                _ratio(times_as_fast(outcomes, EAGER.name)),
                speed_of(case, ours) if ours.seconds else "not timed",
            )
        )
    return [*_joined(rows), "", f"{machine()}; {date.today().isoformat()}; {versions()}."]


def _ratio(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.{2 if number < 2 else 1}f}x"


def _share(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.2f}"


def _milliseconds(seconds: float) -> str:
    return "" if math.isnan(seconds) else f"{seconds * 1e3:.3g}"


def _joined(rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in rows]
