"""Bars: the numbers that a benchmark has to reach, and the table that compares them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """One line of the table: a number that has to be at least (``at_most``: at most) ``bar``.

    ``measured`` is NaN where it was not measured; ``form`` is its format specification.
    """

    what: str
    bar: float
    goal: float
    measured: float
    note: str = ""
    at_most: bool = False
    form: str = ".2f"

    @property
    def verdict(self) -> str:
        """One of "goal", "bar", "MISSED" and "not measured": the best that is reached."""
        if math.isnan(self.measured):
            return "not measured"
        for verdict, limit in (("goal", self.goal), ("bar", self.bar)):
            if self.measured <= limit if self.at_most else self.measured >= limit:
                return verdict
        return "MISSED"


def bars_table(table: Iterable[Bar]) -> list[str]:
    """Format the bars as lines of text."""
    heading = f"{'':<56}{'bar':>8}{'goal':>8}{'measured':>12}  verdict"
    return [heading, *map(_line, table)]


def _line(row: Bar) -> str:
    measured = "-" if math.isnan(row.measured) else f"{row.measured:{row.form}}"
    note = f" ({row.note})" if row.note else ""
    return f"{row.what:<56}{row.bar:>8g}{row.goal:>8g}{measured:>12}  {row.verdict}{note}"
