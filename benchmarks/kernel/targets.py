"""Bars of the kernels, against memory and the other libraries."""

from __future__ import annotations

import math
from collections.abc import Iterable

from benchmarks.bars import Bar
from benchmarks.kernel.contestants import COMPILED, EAGER, OURS, PLAIN, READ
from benchmarks.kernel.report import Results, best_peer, share_of_limit, times_as_fast
from benchmarks.problems import (
    DIVERGENCES,
    GRADIENT,
    HUNDRED,
    LARGE,
    LARGE_BFLOAT16,
    LONG_ROWS,
    LONGEST,
    MARGINS,
    PLANES_IN_CACHE,
    SEQUENCES,
    SIXTY_FOUR,
    STRIDED,
    TEN,
    THOUSAND,
    THOUSAND_BFLOAT16,
    TINY,
    TOPS,
    Case,
)

_BEST = "the best peer"
# Case, bar and goal: share of the machine's limit in the same run (``report.limit_of``).
_SHARES: tuple[tuple[Case, float, float], ...] = (
    (LARGE, 0.95, 0.99),
    (LARGE_BFLOAT16, 0.95, 0.99),
    (THOUSAND, 0.6, 0.85),
    (THOUSAND_BFLOAT16, 0.6, 0.85),
    (HUNDRED, 0.75, 0.95),
    (STRIDED, 0.65, 0.9),
    (TEN, 0.45, 0.8),
    (PLANES_IN_CACHE, 0.3, 0.6),
    (LONGEST, 0.5, 0.8),
    (SIXTY_FOUR, 0.25, 0.5),
    (GRADIENT, 0.7, 0.9),
)
# Cases of which the slowest counts, the rival, the bar, the goal: times as fast as the rival.
_RATIOS: tuple[tuple[tuple[Case, ...], str, float, float], ...] = (
    ((LARGE,), COMPILED.name, 1.5, 3.0),
    ((TEN,), _BEST, 2.0, 4.0),
    ((HUNDRED,), _BEST, 1.5, 3.0),
    ((STRIDED,), _BEST, 2.0, 4.0),
    ((*LONG_ROWS, TEN, HUNDRED, STRIDED), EAGER.name, 8.0, 12.0),
    ((GRADIENT,), COMPILED.name, 1.5, 2.5),
    # Outputs found while the loss is summed: within 5 % and 15 % of the loss alone.
    *(((case,), PLAIN.name, 1 / 1.05, 1.0) for case in MARGINS),
    *(((case,), PLAIN.name, 1 / 1.15, 1.0) for case in TOPS),
    ((*MARGINS, *TOPS), EAGER.name, 8.0, 12.0),
    *(((case,), READ.name, 0.8, 0.95) for case in DIVERGENCES),
    (DIVERGENCES, COMPILED.name, 1.5, 3.0),
    ((PLANES_IN_CACHE,), COMPILED.name, 2.0, 4.0),
    *(((case,), PLAIN.name, 0.97, 1.0) for case in SEQUENCES),
    *(((case,), EAGER.name, 8.0, 12.0) for case in SEQUENCES),
    ((SEQUENCES[0],), COMPILED.name, 1.5, 3.0),
    ((TINY,), EAGER.name, 1.5, 3.0),
)


def _ratio(results: Results, cases: Iterable[Case], rival: str) -> tuple[float, str]:
    """The smallest of our speeds relative to ``rival`` among ``cases``, and its case or peer."""
    measured = []
    for case in cases:
        outcomes = results.get(case, {})
        name = best_peer(outcomes) or "" if rival == _BEST else rival
        measured.append((times_as_fast(outcomes, name), name if rival == _BEST else case.name))
    return min((pair for pair in measured if not math.isnan(pair[0])), default=(math.nan, ""))


def _worst_loss(results: Results) -> tuple[float, str]:
    errors = [
        (outcomes[OURS.name].element_error, case.name)
        for case, outcomes in results.items()
        if OURS.name in outcomes
    ]
    known = [(error, name) for error, name in errors if error is not None]
    return max(known, default=(math.nan, ""))


def bars(results: Results, grown: float, allocated: float) -> list[Bar]:
    """Compare ``results``, and the bytes of ``measure.temporaries``, with every bar."""
    table = []
    for case, bar, goal in _SHARES:
        what = f"{case.name}, share of the limit"
        table.append(Bar(what, bar, goal, share_of_limit(results.get(case, {}))))
    for cases, rival, bar, goal in _RATIOS:
        one = len(cases) == 1
        measured, where = _ratio(results, cases, rival)
        named = cases[0].name if one else f"{len(cases)} cases from {cases[0].name} on"
        what = f"{named}, against {rival}"
        table.append(Bar(what, bar, goal, measured, where if rival == _BEST or not one else ""))
    error, where = _worst_loss(results)
    table.append(Bar("worst single loss against float64", 1e-6, 7.5e-7, error, where, True, ".1e"))
    note = "" if math.isnan(allocated) else f"{allocated:.0f} bytes in all"
    table.append(Bar("N x C temporaries for a loss, bytes a logit", 0, 0, grown, note, True))
    return table
