"""One step of a report: what the kernels say of some neighbouring positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Step(NamedTuple):
    """Positions from number ``first`` on, each with one value in these arrays.

    ``labels`` (int64) are classes, also where a position does not count; ``counted`` tells which
    do. ``losses`` and ``weights`` are as a mean takes them, 0 where a position does not count;
    ``nll`` is minus the label's log-probability, ``squares`` the sum of all squared probabilities,
    ``confidences`` the largest probability: float64. ``predictions`` is int64; ``ranks`` is the
    number of classes before the label, -1 for a NaN among the logits. ``rows`` returns the logits,
    after softcap and before temperature, of the positions that it is given (from 0 in this step):
    float64 of shape (positions, classes).
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

    def of(self, chosen: Array) -> Step:
        """The positions ``chosen``, by their indices in this step; ``first`` is as it was."""
        arrays = {
            name: value[chosen]
            for name, value in self._asdict().items()
            if isinstance(value, np.ndarray)
        }
        return self._replace(**arrays, rows=lambda some: self.rows(chosen[some]))
