"""What the kernels are to reach, and whether they do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.kernel.cases import GRADIENT, HUNDRED, LARGE, LONG_ROWS, STRIDED, TEN, TINY, Case
from benchmarks.kernel.contestants import COMPILED, EAGER, OURS, READ
from benchmarks.kernel.report import Results, best_peer, times_as_fast

_BEST = "the best peer"
# The slowest of these cases, against whom, the bar, the goal: times as fast.
_RATIOS: tuple[tuple[tuple[Case, ...], str, float, float], ...] = (
    *(((case,), READ.name, 0.85, 0.97) for case in LONG_ROWS),
    ((LARGE,), COMPILED.name, 1.5, 3.0),
    ((TEN,), _BEST, 2.0, 4.0),
    ((HUNDRED,), _BEST, 1.5, 3.0),
    ((STRIDED,), _BEST, 2.0, 4.0),
    ((*LONG_ROWS, TEN, HUNDRED, STRIDED), EAGER.name, 8.0, 12.0),
    ((GRADIENT,), COMPILED.name, 1.5, 2.5),
    ((TINY,), EAGER.name, 1.0, 2.0),
)


@dataclass(frozen=True)
class Bar:
    """One line of the table: a number that is to be at least (or ``at_most``) ``bar``."""

    what: str
    bar: float
    goal: float
    measured: float  # NaN: was not measured
    note: str = ""
    at_most: bool = False
    form: str = ".2f"

    @property
    def verdict(self) -> str:
        """Which of the two is reached: "goal", "bar", "MISSED" or "not measured"."""
        if math.isnan(self.measured):
            return "not measured"
        for verdict, limit in (("goal", self.goal), ("bar", self.bar)):
            if self.measured <= limit if self.at_most else self.measured >= limit:
                return verdict
        return "MISSED"


def _ratio(results: Results, cases: Iterable[Case], rival: str) -> tuple[float, str]:
    """The smallest among ``cases`` of how many times as fast ours is, and where it was."""
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
    """Every bar, against ``results``, and the two numbers that ``measure.temporaries`` gives."""
    table = []
    for cases, rival, bar, goal in _RATIOS:
        one = len(cases) == 1
        measured, where = _ratio(results, cases, rival)
        what = f"{cases[0].name if one else 'every case above'}, against {rival}"
        table.append(Bar(what, bar, goal, measured, where if rival == _BEST or not one else ""))
    error, where = _worst_loss(results)
    table.append(Bar("worst single loss against float64", 2e-6, 1e-6, error, where, True, ".1e"))
    note = "" if math.isnan(allocated) else f"{allocated:.0f} bytes in all"
    table.append(Bar("N x C temporaries for a loss, bytes a logit", 0, 0, grown, note, True))
    return table


def bars_table(table: Iterable[Bar]) -> list[str]:
    """The bars as text."""
    heading = f"{'':<56}{'bar':>8}{'goal':>8}{'measured':>12}  verdict"
    return [heading, *map(_line, table)]


def _line(row: Bar) -> str:
    measured = "-" if math.isnan(row.measured) else f"{row.measured:{row.form}}"
    note = f" ({row.note})" if row.note else ""
    return f"{row.what:<56}{row.bar:>8g}{row.goal:>8g}{measured:>12}  {row.verdict}{note}"
