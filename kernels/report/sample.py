"""Sample of rows of logits, of which the best temperature is sought.

Rows are chosen by a hash of what the kernels say of them, the smallest first (a bottom-k sketch),
so that a sample does not depend on how the data was split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kernels.devices import compute
from kernels.dtypes import DType
from kernels.problem import check
from kernels.report import temperature
from kernels.report.found import NAMES
from kernels.report.step import Step

Array = np.ndarray[Any, Any]

# Logits: 2 MB as bfloat16, whose loss at one temperature takes a millisecond.
_LOGITS = 1 << 20
_LEAST_ROWS, _MOST_ROWS = 16, 4096
# Bytes of rows that are copied into the sample at a time, or one row: arrays of more have new pages
# each time, and a single row is copied from where it lies.
_COPIED = 1 << 16


def rows_of(classes: int) -> int:
    """Number of rows in a full sample."""
    return min(max(_LOGITS // max(classes, 1), _LEAST_ROWS), _MOST_ROWS)


def _mixed(values: Array) -> Array:
    """Finaliser of SplitMix64 (G. Steele et al., 2014): uint64 to well mixed uint64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = values ^ (values >> np.uint64(31))
    return mixed


class Sample:
    """Rows with the smallest hashes, of all that were added.

    ``rows`` holds logits as they were given, of shape (rows, classes) and of ``dtype``;
    ``labels`` is int64, ``weights`` float64, ``hashes`` uint64, ascending.
    """

    def __init__(self, classes: int, dtype: DType, softcap: float | None) -> None:
        self.hashes = np.empty(0, np.uint64)
        self.labels = np.empty(0, np.int64)
        self.weights = np.empty(0)
        self._softcap = softcap
        self._most = rows_of(classes)
        # Rows stay where they are written, in the first places: ``_places`` says where, in order of
        # their hashes.
        self._rows = np.empty((0, classes), dtype.numpy)
        self._places = np.empty(0, np.int64)

    @property
    def rows(self) -> Array:
        return self._rows[self._places]

    def add(self, step: Step) -> None:
        """Add a step's positions, all of which count; those without a finite loss are left out."""
        usable = np.flatnonzero(np.isfinite(step.nll) & (step.weights > 0.0))
        hashes = _mixed(step.nll[usable].view(np.uint64))
        for more in (step.predictions, step.labels):
            hashes = _mixed(hashes ^ more[usable].astype(np.uint64))
        if len(self.hashes) == self._most:
            smaller = hashes < self.hashes[-1]
            usable, hashes = usable[smaller], hashes[smaller]
        order = np.argsort(hashes, kind="stable")[: self._most]
        if order.size:
            chosen = usable[order]
            labels, weights = step.labels[chosen], step.weights[chosen]
            self._keep(hashes[order], labels, weights, lambda some: step.rows(chosen[some]))

    def merge(self, other: Sample) -> None:
        """Add the rows of ``other``, which come after these."""
        rows = other.rows
        self._keep(other.hashes, other.labels, other.weights, lambda some: rows[some])

    def _keep(
        self, hashes: Array, labels: Array, weights: Array, rows: Callable[[Array], Array]
    ) -> None:
        """Keep the smallest of these and those here; ``rows`` returns the logits of some."""
        old = len(self.hashes)
        hashes = np.concatenate([self.hashes, hashes])
        order = np.argsort(hashes, kind="stable")[: self._most]
        fresh = order[order >= old] - old
        free = np.ones(len(self._rows), bool)
        free[self._places[order[order < old]]] = False
        if np.count_nonzero(free) < len(fresh):
            size = min(max(2 * len(self._rows), len(order)), self._most)
            wider = np.empty((size, self._rows.shape[1]), self._rows.dtype)
            wider[: len(self._rows)] = self._rows
            free = np.concatenate([free, np.ones(size - len(free), bool)])
            self._rows = wider
        places = np.empty(len(hashes) - old, np.int64)
        places[fresh] = np.flatnonzero(free)[: len(fresh)]
        some = max(1, _COPIED // max(self._rows[:1].nbytes, 1))
        for first in range(0, len(fresh), some):
            part = fresh[first : first + some]
            self._rows[places[part]] = rows(part)
        self.hashes = hashes[order]
        self.labels = np.concatenate([self.labels, labels])[order]
        self.weights = np.concatenate([self.weights, weights])[order]
        self._places = np.concatenate([self._places, places])[order]

    def arrays(self) -> dict[str, Array]:
        """Arrays that ``load`` takes."""
        rows = np.ascontiguousarray(self.rows).view(np.uint8)
        names = ("hashes", "labels", "weights")
        return {**{name: getattr(self, name) for name in names}, "rows": rows}

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Take the rows of ``arrays`` in place of those here. Raises ``ValueError``."""
        self.hashes = arrays["hashes"].astype(np.uint64)
        self.labels = arrays["labels"].astype(np.int64)
        self.weights = arrays["weights"].astype(np.float64)
        rows = np.ascontiguousarray(arrays["rows"], np.uint8).view(self._rows.dtype)
        self._rows = rows.reshape(len(self.hashes), self._rows.shape[1])
        self._places = np.arange(len(rows))

    def best_temperature(self, current: float) -> dict[str, Any]:
        """Temperature with the least cross-entropy of the sample, and the losses there and now.

        It is sought within a factor of 64 from ``current``. NaN without a sample.
        """
        found = {"current": current, "best": math.nan, "loss": math.nan, "best_loss": math.nan}
        if len(self.hashes):
            at = self._losses(current)
            loss, slope = at(1.0)
            found |= {"loss": loss, "best": current, "best_loss": loss}
            scale, best_loss = temperature.least(at, loss, slope)
            if best_loss < loss:  # not by rounding: equal logits have one loss at any scale
                found |= {"best": current / scale, "best_loss": best_loss}
        # Its precision, and no digits beyond.
        found["best"] = float(f"{found['best']:.4g}")
        return {**found, "sample": len(self.hashes)}

    def _losses(self, current: float) -> Callable[[float], tuple[float, float]]:
        """Mean loss, and its derivative by the scale, as a function of a scale of the logits.

        A scale of 1 is the temperature ``current``. The derivative at 1 is the mean of loss minus
        entropy.
        """
        order = np.argsort(self._places)  # as they lie: a copy takes as long as a loss
        rows, labels, weights = self._rows[: len(order)], self.labels[order], self.weights[order]
        problem, total = check(rows, labels, softcap=self._softcap), math.fsum(weights.tolist())

        def at(scale: float) -> tuple[float, float]:
            temperature = min(max(current / scale, 1e-30), 1e30)
            _, found = compute(replace(problem, temperature=temperature), (*NAMES, "entropy"))
            losses = found["losses"]
            slopes = (losses - found["entropy"].astype(np.float64)) * weights
            sums = [math.fsum(each.tolist()) for each in (losses * weights, slopes)]
            return sums[0] / total, sums[1] / total / scale

        return at
