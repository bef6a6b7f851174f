"""The true losses: plain NumPy in extended precision, to be read next to the formulas.

It imports nothing of the kernels and shares no trick with them. Where semantics differ from
PyTorch's on purpose, the line says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# What a result may be off by, times the largest term that went into it (at least 1).
TOLERANCE = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-12}


def is_bfloat16(array: Array) -> bool:
    """True for both ways of carrying bfloat16: a record of its bits, and ml_dtypes' own."""
    return "bfloat16" in (array.dtype.name, *(array.dtype.names or ()))


def widen(array: Array) -> Array:
    """``array`` in extended precision. bfloat16 is the upper half of a float32."""
    if array.dtype.names == ("bfloat16",):
        bits = array["bfloat16"].astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.longdouble)
    return array.astype(np.longdouble)


def class_dimension(ndim: int, class_axis: int | None) -> int:
    """Which axis holds the classes: 1, or 0 of a single row, where the caller does not say."""
    return class_axis % ndim if class_axis is not None else min(1, ndim - 1)


def log_softmax(logits: Array, class_axis: int | None = None) -> Array:
    """``x - max - log(sum(exp(x - max)))`` over the class axis."""
    axis = class_dimension(logits.ndim, class_axis)
    x = widen(logits)
    with np.errstate(all="ignore"):
        shifted = x - x.max(axis, keepdims=True, initial=-np.inf)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis, keepdims=True)))


def softmax(logits: Array, class_axis: int | None = None) -> Array:
    """``exp(log_softmax)``."""
    with np.errstate(all="ignore"):
        return np.asarray(np.exp(log_softmax(logits, class_axis)))


def first_bad_label(
    labels: Array, classes: int, ignore_index: int = -100
) -> tuple[int, ...] | None:
    """The index, first in C order, of a label that is neither a class nor ignored."""
    for position, label in np.ndenumerate(labels):
        if int(label) != ignore_index and not 0 <= int(label) < classes:
            return position
    return None


def cross_entropy(
    logits: Array,
    labels: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    class_axis: int | None = None,
    empty: str = "nan",
) -> Array:
    """The loss, from integer labels or from class probabilities."""
    axis = class_dimension(logits.ndim, class_axis)
    log_probs = log_softmax(logits, axis)
    if labels.dtype.kind in "iu":
        parts, counted = _from_classes(
            log_probs, labels, weight, ignore_index, label_smoothing, axis
        )
    else:
        parts = [_from_probabilities(log_probs, labels, weight, label_smoothing, axis)]
        counted = np.ones(parts[0].shape, np.longdouble)  # the mean is NOT divided by weights
    return _reduce(parts, counted, reduction, empty)


def nll_loss(
    log_probs: Array,
    labels: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    class_axis: int | None = None,
    empty: str = "nan",
) -> Array:
    """The loss from log-probabilities, which are taken as they are."""
    axis = class_dimension(log_probs.ndim, class_axis)
    parts, counted = _from_classes(widen(log_probs), labels, weight, ignore_index, 0.0, axis)
    return _reduce(parts, counted, reduction, empty)


def _weights(weight: Array | None, classes: int) -> Array:
    return np.ones(classes, np.longdouble) if weight is None else widen(weight)


def _from_classes(
    log_probs: Array,
    labels: Array,
    weight: Array | None,
    ignore_index: int,
    smoothing: float,
    axis: int,
) -> tuple[list[Array], Array]:
    """The addends ``(1-e) w_y (-lp_y)`` and ``(e/C) sum_c w_c (-lp_c)``, 0 where ignored; and what
    a mean divides by: ``w_y``, masked where ignored.
    """
    lp = np.moveaxis(log_probs, axis, -1)
    classes = lp.shape[-1]
    w = _weights(weight, classes)
    bad = first_bad_label(labels, classes, ignore_index)
    if bad is not None:
        raise IndexError(f"label {labels[bad]} at {bad} is not one of {classes} classes")
    kept = np.asarray(labels != ignore_index)
    y = labels[kept].astype(np.int64)
    chosen = lp[kept]
    with np.errstate(all="ignore"):
        values = [-w[y] * chosen[np.arange(y.size), y]]
        if smoothing > 0:
            values = [(1 - smoothing) * values[0], smoothing / classes * (w * -chosen).sum(-1)]
    parts = [np.zeros(labels.shape, np.longdouble) for _ in values]
    for part, value in zip(parts, values, strict=True):
        part[kept] = value
    counted = np.ma.masked_array(np.zeros(labels.shape, np.longdouble), mask=~kept)
    counted[kept] = w[y]
    return parts, counted


def _from_probabilities(
    log_probs: Array, labels: Array, weight: Array | None, smoothing: float, axis: int
) -> Array:
    """``-sum_c w_c t'_c lp_c`` where ``t' = t(1-e) + e/C``."""
    lp = np.moveaxis(log_probs, axis, -1)
    t = np.moveaxis(widen(labels), axis, -1)
    classes = lp.shape[-1]
    if smoothing > 0:
        t = t * (1 - smoothing) + np.longdouble(smoothing) / classes
    with np.errstate(all="ignore"):
        terms = _weights(weight, classes) * t * lp
        # Better than PyTorch: what cannot happen and does not happen costs nothing, not NaN.
        terms[(t == 0) & np.isneginf(lp)] = 0
        return np.asarray(-terms.sum(-1))


def _reduce(parts: list[Array], counted: Array, reduction: str, empty: str) -> Array:
    """Each addend is divided on its own: with a total weight of 0, ``0/0 + s/0`` is NaN."""
    with np.errstate(all="ignore"):
        if reduction == "none":
            return sum(parts[1:], start=parts[0])
        totals = [part.sum() for part in parts]
        if reduction == "sum":
            return np.asarray(sum(totals[1:], start=totals[0]))
        if np.ma.count(counted) == 0 and empty != "nan":
            if empty == "error":
                raise ValueError("the mean of nothing")
            return np.zeros((), np.longdouble)
        divisor = np.ma.filled(counted, 0).sum(dtype=np.longdouble)
        return np.asarray(sum(total / divisor for total in totals))


def assert_close(got: Array, want: Array, scale: Array | float = 1.0) -> None:
    """``got`` is ``want`` as its dtype can say it: shape, NaN and infinities exactly, the rest
    within ``TOLERANCE * max(1, |want|, |scale|)``. ``scale`` is for sums whose terms cancel.
    """
    assert isinstance(got, np.ndarray), type(got)
    assert got.shape == want.shape
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(got[~finite], rounded[~finite])
        error = np.abs(got[finite].astype(np.longdouble) - want[finite])
        size = np.maximum(1, np.maximum(np.abs(want), scale))[finite]
    worst = float((error / size).max(initial=0.0))
    assert worst <= TOLERANCE[got.dtype], f"{worst:.3g} off, relative to max(1, |value|)"
