"""Losses over rows that arrive in parts, or are computed on several machines and merged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from kernels.answer import counted, impossible_label, mean, narrowed
from kernels.devices import compute
from kernels.errors import InvalidInput
from kernels.plan import ImpossibleLabel
from kernels.problem import EMPTY, Array, check
from kernels.reduce import BLOCK, SCALE, add_blocks, sum_all_blocks
from kernels.scalars import named, number

# Outputs that add up: those of a whole are the sums of those of its parts.
SUMS = ("count", "weight_sum", "loss_sum")


def merge(
    parts: Iterable[Mapping[str, Any]],
    *,
    reduction: str = "mean",
    empty: str = "nan",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> dict[str, Any]:
    """Merge the losses of parts of a batch, each a mapping with ``SUMS``, to that of the whole.

    The mean is the sum of the parts' ``loss_sum`` over that of their ``weight_sum``: a mean of
    means would give each part the same weight, however few labels it has. Sums are rounded once,
    so the parts may come in any order. The options are those of the parts; ``reduction`` says what
    the merged ``loss`` is. Values may be texts, as JSON has them for what is not finite.

    Returns ``loss`` and ``SUMS`` of the whole, float64 and for ``count`` an integer: a part for
    another merge. It differs from one call with all of the batch by rounding to float64 at most.
    Raises ``InvalidInput`` for a part without one of ``SUMS``.
    """
    named("reduction", reduction, ("mean", "sum")), named("empty", empty, EMPTY)
    columns = [[_sum_of(part, name) for name in SUMS] for part in parts]
    count, weight, total = [_added(values) for values in zip(*columns, strict=True)] or [0.0] * 3
    plain = not (number("label_smoothing", label_smoothing) or number("z_loss", z_loss))
    loss = mean(total, weight, empty, plain and total != 0.0) if reduction == "mean" else total
    return {"loss": loss, "count": int(count), "weight_sum": weight, "loss_sum": total}


def _sum_of(part: Mapping[str, Any], name: str) -> float:
    try:
        return float(part[name])
    except (KeyError, TypeError, ValueError):
        raise InvalidInput(
            f"each part needs {', '.join(SUMS)}, one number each: ask for these outputs", field=name
        ) from None


def _added(values: Iterable[float]) -> float:
    """Sum of ``values``, rounded once where it is finite."""
    values = list(values)
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond float64; infinities of both signs
        return sum(values)


class LossAccumulator:
    """Sum or mean of a loss over rows that arrive in parts.

    Fed in order, in parts of any size, it has the bits that one call with all rows gives: both
    add within the same blocks of positions (``kernels.reduce``), and an unfinished block is kept
    value by value. ``options`` are those of ``cross_entropy`` that are the same for all rows.
    """

    def __init__(self, *, reduction: str = "mean", empty: str = "nan", **options: Any) -> None:
        self._mean = named("reduction", reduction, ("mean", "sum")) == "mean"
        self._empty = named("empty", empty, EMPTY)
        for name in ("outputs", "sample_weight", "mask", "segments", "bytes"):
            if name in options:
                raise InvalidInput(f"{name} is not an option of an accumulator", field=name)
        self._options = options
        self._total, self._weight, self._count = 0.0, 0.0, 0
        self._pending = np.empty((2, 0))
        self._dtype: np.dtype[Any] | None = None

    def update(
        self, logits: Any, labels: Any, *, sample_weight: Any = None, mask: Any = None
    ) -> None:
        """Add rows, as ``cross_entropy`` takes them. Raises ``InvalidInput``, and adds nothing."""
        problem = check(logits, labels, sample_weight=sample_weight, mask=mask, **self._options)
        try:
            arrays = compute(problem, ("losses", "weights"))[1]
        except ImpossibleLabel as error:
            raise impossible_label(problem, error.position) from None
        fresh = np.stack([arrays["losses"], arrays["weights"]])
        values = np.concatenate([self._pending, fresh], axis=1)
        whole = values.shape[1] // BLOCK * BLOCK
        self._add(values[:, :whole])
        self._pending = values[:, whole:].copy()
        # Weights that are all 1 add up exactly, in any order.
        self._count += counted(problem, SCALE * float(arrays["weights"].sum()))
        self._dtype = np.result_type(self._dtype or np.float32, problem.dtype.result)

    def add(self, part: Mapping[str, Any]) -> None:
        """Add the rows of an answer that has ``SUMS``, as ``merge`` does: up to float64 rounding.

        Raises ``InvalidInput`` where it has not.
        """
        count, weight, total = [_sum_of(part, name) for name in SUMS]
        self._count += int(count)
        self._weight += SCALE * weight
        self._total += SCALE * total

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
        self._count += other._count
        self._dtype = np.result_type(self._dtype or np.float32, other._dtype or np.float32)

    def result(self) -> Array:
        """Reduced loss of all rows so far: a scalar of the losses' dtype."""
        total, weight = self._sums()
        if self._mean:
            plain = not (self._options.get("label_smoothing") or self._options.get("z_loss"))
            total = mean(total, weight, self._empty, plain and total != 0.0)
        else:
            total /= SCALE
        return narrowed(total, np.dtype(self._dtype or np.float32))

    def sums(self) -> dict[str, Any]:
        """``SUMS`` of all rows so far, a part for ``merge``: an integer, and two float64."""
        total, weight = self._sums()
        return {"count": self._count, "weight_sum": weight / SCALE, "loss_sum": total / SCALE}

    def _sums(self) -> tuple[float, float]:
        rest = add_blocks(sum_all_blocks(self._pending))
        return self._total + rest[0], self._weight + rest[1]

    def _add(self, values: Array) -> None:
        for loss, weight in sum_all_blocks(values):
            self._total += loss
            self._weight += weight
