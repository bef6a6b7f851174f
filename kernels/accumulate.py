"""Losses over rows that arrive in parts, or are computed on several machines and merged."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.answer import impossible_label, mean, narrowed
from kernels.devices import compute
from kernels.errors import InvalidInput
from kernels.plan import ImpossibleLabel
from kernels.problem import EMPTY, Array, check
from kernels.reduce import BLOCK, SCALE, add_blocks, sum_all_blocks
from kernels.scalars import named


class LossAccumulator:
    """Sum or mean of a loss over rows that arrive in parts.

    Fed in order, in parts of any size, it has the bits that one call with all rows gives: both
    add within the same blocks of positions (``kernels.reduce``), and an unfinished block is kept
    value by value. ``options`` are those of ``cross_entropy`` that are the same for all rows.
    """

    def __init__(self, *, reduction: str = "mean", empty: str = "nan", **options: Any) -> None:
        self._mean = named("reduction", reduction, ("mean", "sum")) == "mean"
        self._empty = named("empty", empty, EMPTY)
        for name in ("outputs", "sample_weight"):
            if name in options:
                raise InvalidInput(f"{name} is not an option of an accumulator", field=name)
        self._options = options
        self._total, self._weight = 0.0, 0.0
        self._pending = np.empty((2, 0))
        self._dtype: np.dtype[Any] | None = None

    def update(self, logits: Any, labels: Any, *, sample_weight: Any = None) -> None:
        """Add rows, as ``cross_entropy`` takes them. Raises ``InvalidInput``, and adds nothing."""
        problem = check(logits, labels, sample_weight=sample_weight, **self._options)
        try:
            arrays = compute(problem, ("losses", "weights"))[1]
        except ImpossibleLabel as error:
            raise impossible_label(problem, error.position) from None
        fresh = np.stack([arrays["losses"], arrays["weights"]])
        values = np.concatenate([self._pending, fresh], axis=1)
        whole = values.shape[1] // BLOCK * BLOCK
        self._add(values[:, :whole])
        self._pending = values[:, whole:].copy()
        self._dtype = np.result_type(self._dtype or np.float32, problem.dtype.result)

    def merge(self, other: LossAccumulator) -> None:
        """Add the rows of ``other`` after these; the result is the same up to float64 rounding.

        Raises ``InvalidInput`` where the two differ in reduction or ``empty``.
        """
        if (self._mean, self._empty) != (other._mean, other._empty):
            raise InvalidInput("the accumulators differ in reduction or empty", field="reduction")
        pending, total, weight = other._pending.copy(), other._total, other._weight
        self._add(self._pending)
        self._pending = pending
        self._total += total
        self._weight += weight
        self._dtype = np.result_type(self._dtype or np.float32, other._dtype or np.float32)

    def result(self) -> Array:
        """Reduced loss of all rows so far: a scalar of the losses' dtype."""
        rest = add_blocks(sum_all_blocks(self._pending))
        total, weight = self._total + rest[0], self._weight + rest[1]
        if self._mean:
            plain = not (self._options.get("label_smoothing") or self._options.get("z_loss"))
            total = mean(total, weight, self._empty, plain and total != 0.0)
        else:
            total /= SCALE
        return narrowed(total, np.dtype(self._dtype or np.float32))

    def _add(self, values: Array) -> None:
        for loss, weight in sum_all_blocks(values):
            self._total += loss
            self._weight += weight
