"""One step of a report: what the kernels say of some neighbouring positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Step(NamedTuple):
    """Positions from number ``first`` on, each with one value in these arrays.

    ``labels`` (int64) are classes, also where a position does not count; ``counted`` tells which
    do. ``losses`` and ``weights`` are as a mean takes them, 0 where a position does not count;
    ``nll`` is minus the label's log-probability, ``squares`` the sum of all squared probabilities,
    ``confidences`` the largest probability: float64. float64. ``predictions`` is int64;
    ``ranks`` is the number of classes before the label, -1 for a NaN among the logits. Of the
    positions that they are given, counted from 0 in this step, ``rows`` returns the logits as they
    were given, of shape (positions, classes), and ``margins`` the label's logit minus the largest
    other, after softcap and temperature: float64.
    """

    first: int
    labels: Array
    counted: Array
    losses: Array
    weights: Array
    nll: Array
    squares: Array
    confidences: Array
    predictions: Array
    ranks: Array
    rows: Callable[[Array], Array]
    margins: Callable[[Array], Array]

    def of(self, chosen: Array) -> Step:
        """The positions ``chosen``, by their indices in this step; ``first`` is as it was."""
        arrays: dict[str, Any] = {
            name: value[chosen]
            for name, value in self._asdict().items()
            if isinstance(value, np.ndarray)
        }
        return self._replace(
            **arrays,
            rows=lambda some: self.rows(chosen[some]),
            margins=lambda some: self.margins(chosen[some]),
        )

    def without_logits(self) -> Step:
        """The same for those who need no logits, so that these may go."""
        return self._replace(rows=_gone, margins=_gone)


def _gone(positions: Array) -> Array:
    raise AssertionError("the logits are gone")


def joined(steps: Sequence[Step]) -> Step:
    """Positions of ``steps`` in a row, without logits; ``first`` is meaningless."""
    one = steps[0]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(step, name) for step in steps])
        for name, value in one._asdict().items()
        if isinstance(value, np.ndarray)
    }
    return one._replace(**arrays)
