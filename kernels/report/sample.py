"""Sample of rows of logits, and the temperature that minimises their loss.

Rows are chosen by a hash of what the kernels say of them, the smallest first (a bottom-k sketch),
so that a sample does not depend on how the data was split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

import kernels
from kernels.report.step import Step

Array = np.ndarray[Any, Any]

# Logits: 4 MB as float32, whose loss at one temperature takes a millisecond.
_LOGITS = 1 << 20
_LEAST_ROWS, _MOST_ROWS = 16, 4096
# Of a sample's best temperature to the current one, at most, and its relative error.
_FARTHEST, _PRECISION = 64.0, 1e-4
_PASSES = 30


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

    ``rows`` is float32 of shape (rows, classes), each minus its largest logit, before temperature;
    ``labels`` int64, ``weights`` float64, ``hashes`` uint64, ascending.
    """

    def __init__(self, classes: int) -> None:
        self.hashes = np.empty(0, np.uint64)
        self.labels = np.empty(0, np.int64)
        self.weights = np.empty(0)
        self.rows = np.empty((0, classes), np.float32)
        self._most = rows_of(classes)

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
        if not order.size:
            return
        chosen = usable[order]
        rows = step.rows(chosen)
        rows -= rows.max(1, keepdims=True)
        with np.errstate(over="ignore"):
            narrow = rows.astype(np.float32)
        self._keep(hashes[order], step.labels[chosen], step.weights[chosen], narrow)

    def merge(self, other: Sample) -> None:
        """Add the rows of ``other``, which come after these."""
        self._keep(other.hashes, other.labels, other.weights, other.rows)

    def _keep(self, hashes: Array, labels: Array, weights: Array, rows: Array) -> None:
        hashes = np.concatenate([self.hashes, hashes])
        order = np.argsort(hashes, kind="stable")[: self._most]
        self.hashes = hashes[order]
        self.labels = np.concatenate([self.labels, labels])[order]
        self.weights = np.concatenate([self.weights, weights])[order]
        self.rows = np.concatenate([self.rows, rows])[order]

    def arrays(self) -> dict[str, Array]:
        """Arrays that ``load`` takes."""
        names = ("hashes", "labels", "weights", "rows")
        return {name: getattr(self, name) for name in names}

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Take the rows of ``arrays`` in place of those here."""
        self.hashes = arrays["hashes"].astype(np.uint64)
        self.labels = arrays["labels"].astype(np.int64)
        self.weights = arrays["weights"].astype(np.float64)
        self.rows = arrays["rows"].astype(np.float32)

    def best_temperature(self, current: float) -> dict[str, Any]:
        """Temperature with the least cross-entropy of the sample, and the losses there and now.

        The loss is convex in 1 / temperature; its derivative by the logarithm of that is the mean
        of loss minus entropy, whose root is bracketed and then narrowed by the Illinois method
        (M. Dowell and P. Jarratt, 1971). It is sought within a factor of 64 from ``current``.
        NaN without a sample.
        """
        found = {"current": current, "best": math.nan, "loss": math.nan, "best_loss": math.nan}
        if len(self.hashes):
            loss, slope = self._at(current)
            found |= {"loss": loss, "best": current, "best_loss": loss}
            found |= self._root(current, loss, slope)
        return {**found, "sample": len(self.hashes)}

    def _root(self, current: float, loss: float, slope: float) -> dict[str, float]:
        """Search from ``current``, with the loss and the slope there, where the slope is 0."""
        best, best_loss = current, loss
        near, farther = (0.0, slope), math.copysign(math.log(2.0), slope)
        far = near
        while slope and far[1] * slope > 0.0 and abs(far[0]) < math.log(_FARTHEST) - _PRECISION:
            near = far
            far, best_loss = self._moved(current, far[0] + farther)
            best = current * math.exp(far[0])
        moved, passes = math.inf, 0
        while near[1] * far[1] < 0.0 and moved > _PRECISION and passes < _PASSES:
            middle = (near[0] * far[1] - far[0] * near[1]) / (far[1] - near[1])
            moved = abs(middle - far[0])
            new, best_loss = self._moved(current, middle)
            best = current * math.exp(middle)
            if new[1] * far[1] < 0.0:
                near, far = far, new
            else:
                near, far = (near[0], near[1] / 2.0), new
            passes += 1
        return {"best": best, "best_loss": best_loss} if best_loss <= loss else {}

    def _moved(self, current: float, logarithm: float) -> tuple[tuple[float, float], float]:
        """Place and slope at ``current`` times e to the ``logarithm``, and the loss there."""
        loss, slope = self._at(current * math.exp(logarithm))
        return (logarithm, slope), loss

    def _at(self, temperature: float) -> tuple[float, float]:
        """Weighted means of the loss, and of loss minus entropy: the slope by -log(temperature)."""
        temperature = min(max(temperature, 1e-30), 1e30)
        names = ("per_element", "entropy")
        found = kernels.cross_entropy(
            self.rows, self.labels, temperature=temperature, outputs=names
        )
        losses, entropies = (found[name].astype(np.float64) * self.weights for name in names)
        total = math.fsum(self.weights)
        return math.fsum(losses) / total, math.fsum(losses - entropies) / total
