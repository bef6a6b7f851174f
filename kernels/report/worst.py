"""The positions of most loss, kept while others come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kernels.report.step import Step

Array = np.ndarray[Any, Any]

_DTYPES = {
    "losses": np.float64,
    "positions": np.int64,
    "labels": np.int64,
    "predictions": np.int64,
    "confidences": np.float64,
    "margins": np.float64,
}


class Worst:
    """At most ``most`` positions of the largest losses: NaN first, and of equals the first ones.

    ``columns`` has an array for each of their values, the worst position first. ``margins`` is
    the label's logit minus the largest other, after softcap and temperature.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.columns = {name: np.empty(0, dtype) for name, dtype in _DTYPES.items()}

    def add(self, step: Step, places: Array) -> None:
        """Add a step's positions, all of which count; ``places`` are their numbers."""
        chosen = self._candidates(step.losses)
        if not chosen.size:
            return
        self._keep(
            {
                "losses": step.losses[chosen],
                "positions": places[chosen],
                "labels": step.labels[chosen],
                "predictions": step.predictions[chosen],
                "confidences": step.confidences[chosen],
                "margins": step.margins(chosen),
            }
        )

    def merge(self, other: Worst, before: int) -> None:
        """Add the positions of ``other``, which come after the ``before`` ones here."""
        moved = {**other.columns, "positions": other.columns["positions"] + before}
        self._keep(moved)

    def _candidates(self, losses: Array) -> Array:
        """Indices of the losses, no more than ``most``, that may be among the worst."""
        keys = np.where(np.isnan(losses), np.inf, losses)
        kept = self.columns["losses"]
        if not self.most:
            return np.empty(0, np.int64)
        if len(kept) == self.most and not np.isnan(kept[-1]):
            # Equal ones come later, and are no worse. Infinite ones are by NaNs among them.
            chosen = np.flatnonzero((keys > kept[-1]) | np.isnan(losses))
        else:
            chosen = np.arange(len(losses))
        if len(chosen) > self.most:
            nan = np.isnan(losses[chosen])
            order = np.lexsort((chosen, -keys[chosen], ~nan))
            chosen = np.sort(chosen[order[: self.most]])
        return chosen

    def _keep(self, more: Mapping[str, Array]) -> None:
        both = {name: np.concatenate([kept, more[name]]) for name, kept in self.columns.items()}
        losses = both["losses"]
        nan = np.isnan(losses)
        order = np.lexsort((both["positions"], -np.where(nan, np.inf, losses), ~nan))[: self.most]
        self.columns = {name: column[order] for name, column in both.items()}
