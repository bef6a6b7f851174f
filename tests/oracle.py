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
    """Axis of the classes: 1, or 0 of a single row, where the caller does not say."""
    return class_axis % ndim if class_axis is not None else min(1, ndim - 1)


def scaled(logits: Array, temperature: float = 1.0, softcap: float | None = None) -> Array:
    """Softmax's argument: ``softcap * tanh(x / softcap)``, then divided by ``temperature``."""
    x = widen(logits)
    if softcap is not None:
        x = softcap * np.tanh(x / np.longdouble(softcap))
    return np.asarray(x / np.longdouble(temperature))


def log_softmax(logits: Array, class_axis: int | None = None, **options: Any) -> Array:
    """``x - max - log(sum(exp(x - max)))`` over the class axis."""
    axis = class_dimension(logits.ndim, class_axis)
    x = scaled(logits, **options)
    with np.errstate(all="ignore"):
        shifted = x - x.max(axis, keepdims=True, initial=-np.inf)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis, keepdims=True)))


def log_sum_exp(logits: Array, class_axis: int | None = None, **options: Any) -> Array:
    """``log(sum(exp(x)))`` over the class axis: +inf of any +inf, -inf of nothing but -inf."""
    axis = class_dimension(logits.ndim, class_axis)
    x = scaled(logits, **options)
    largest = x.max(axis, keepdims=True)
    with np.errstate(all="ignore"):
        total = np.log(np.exp(x - largest).sum(axis, keepdims=True))
        return np.asarray(np.where(np.isinf(largest), largest, largest + total).squeeze(axis))


def entropy(logits: Array, class_axis: int | None = None, **options: Any) -> Array:
    """``-sum(p * log(p))`` over the class axis, where 0 * log(0) is 0."""
    axis = class_dimension(logits.ndim, class_axis)
    log_probs = log_softmax(logits, axis, **options)
    with np.errstate(all="ignore"):
        p = np.exp(log_probs)
        return np.asarray(np.where(p == 0, 0, -p * log_probs).sum(axis))


def prediction(logits: Array, class_axis: int | None = None) -> Array:
    """The class of the largest logit: the first of equals, or of NaNs."""
    return np.asarray(widen(logits).argmax(class_dimension(logits.ndim, class_axis)))


def rank(
    logits: Array, labels: Array, *, ignore_index: int = -100, class_axis: int | None = None
) -> Array:
    """Number of classes before the label: of a larger logit, or of an equal one and a lower
    index. -1 where the label is ignored or any logit is NaN.
    """
    x = np.moveaxis(widen(logits), class_dimension(logits.ndim, class_axis), -1)
    odd = (labels == ignore_index) | np.isnan(x).any(-1)
    y = np.where(odd, 0, labels).astype(np.int64)[..., None]
    own = np.take_along_axis(x, y, -1)
    before = (x > own) | ((x == own) & (np.arange(x.shape[-1]) < y))
    return np.where(odd, -1, before.sum(-1))


def likeliest(
    logits: Array,
    labels: Array | None = None,
    *,
    class_axis: int | None = None,
    top_k: int = 1,
    ignore_index: int = -100,
    **options: Any,
) -> dict[str, Array]:
    """Outputs about the likeliest classes, one position after another, in plain loops.

    NaNs come first, then the largest logits, of equals the first class; margins of ignored
    positions, and of NaNs, are NaN.
    """
    axis = class_dimension(logits.ndim, class_axis)
    raw = np.moveaxis(widen(logits), axis, -1)
    x = np.moveaxis(scaled(logits, **options), axis, -1)
    log_probs = np.moveaxis(log_softmax(logits, axis, **options), axis, -1)
    shape, classes = raw.shape[:-1], raw.shape[-1]
    found: dict[str, Array] = {
        "max_logit": np.empty(shape, np.longdouble),
        "confidence": np.empty(shape, np.longdouble),
        "margin": np.full(shape, np.nan, np.longdouble),
        "top_log_probs": np.empty((*shape, top_k), np.longdouble),
        "top_classes": np.empty((*shape, top_k), np.int64),
    }
    for at in np.ndindex(*shape):
        row = raw[at]
        nans = [c for c in range(classes) if np.isnan(row[c])]
        rest = [c for c in np.argsort(-row, kind="stable") if not np.isnan(row[c])]
        order = [*nans, *rest]
        found["max_logit"][at] = x[at][order[0]]
        found["confidence"][at] = np.exp(log_probs[at][order[0]])
        found["top_classes"][at] = order[:top_k]
        found["top_log_probs"][at] = log_probs[at][order[:top_k]]
        if labels is not None and labels[at] != ignore_index:
            own, others = x[at][labels[at]], np.delete(x[at], labels[at])
            with np.errstate(all="ignore"):
                found["margin"][at] = own - others.max(initial=-np.inf)
            if classes == 1 and not np.isnan(own):
                found["margin"][at] = np.inf
    return found


def binary_cross_entropy(
    logits: Array,
    labels: Array,
    *,
    weight: Array | float = 1.0,
    pos_weight: Array | float = 1.0,
    sample_weight: Array | float = 1.0,
    ignore_index: int = -100,
) -> dict[str, Array]:
    """``-w * (p * y * log(sigmoid(x)) + (1 - y) * log(1 - sigmoid(x)))``, its sums and gradient.

    A term whose factor is 0 is 0, even where the logarithm is not finite (PyTorch: NaN).
    """
    x, y = widen(logits), widen(labels)
    kept = y != ignore_index
    y = np.where(kept, y, 0)
    samples = np.broadcast_to(np.asarray(sample_weight, np.longdouble), x.shape) * kept
    with np.errstate(all="ignore"):
        at_one = np.logaddexp(0, -x)
        at_zero = np.logaddexp(0, x)
        positive = np.where(y == 0, 0, pos_weight * y * at_one)
        losses = weight * (positive + np.where(y == 1, 0, (1 - y) * at_zero))
        p = 1 / (1 + np.exp(-x))
        slopes = weight * ((1 - y) * p - pos_weight * y / (1 + np.exp(x)))
        losses = np.where(samples == 0, 0, losses * samples)
        slopes = np.where(samples == 0, 0, slopes * samples)
        return {
            "per_element": losses,
            "loss": losses.sum() / samples.sum(),
            "loss_sum": losses.sum(),
            "weight_sum": samples.sum(),
            "count": np.asarray(kept.sum()),
            "gradient": slopes / samples.sum(),
        }


def softmax(logits: Array, class_axis: int | None = None, **options: Any) -> Array:
    """``exp(log_softmax)``."""
    with np.errstate(all="ignore"):
        return np.asarray(np.exp(log_softmax(logits, class_axis, **options)))


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
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    sample_weight: Array | None = None,
    empty: str = "nan",
    focal: float = 0.0,
) -> Array:
    """The loss, from integer labels or from class probabilities."""
    axis = class_dimension(logits.ndim, class_axis)
    log_probs = log_softmax(logits, axis, temperature=temperature, softcap=softcap)
    if labels.dtype.kind in "iu":
        parts, counted = _from_classes(
            log_probs, labels, weight, ignore_index, label_smoothing, axis
        )
    else:
        parts = [_from_probabilities(log_probs, labels, weight, label_smoothing, axis)]
        counted = np.ones(parts[0].shape, np.longdouble)  # the mean is NOT divided by weights
    if focal > 0:
        parts = [part * _focal(log_probs, labels, label_smoothing, axis) ** focal for part in parts]
    if z_loss > 0:
        lse = log_sum_exp(logits, axis, temperature=temperature, softcap=softcap)
        parts.append(np.where(np.ma.getmaskarray(counted), 0, z_loss * lse**2))
    return _reduce(*_sampled(parts, counted, sample_weight), reduction, empty)


def _focal(log_probs: Array, labels: Array, label_smoothing: float, axis: int) -> Array:
    """1 minus the sum of the softmax times the smoothed label's probabilities."""
    log_probs = np.moveaxis(log_probs, axis, -1)
    classes, e = log_probs.shape[-1], np.longdouble(label_smoothing)
    if labels.dtype.kind in "iu":
        t = (np.arange(classes) == labels[..., None]).astype(np.longdouble)
    else:
        t = np.moveaxis(widen(labels), axis, -1)
    q = t * (1 - e) + e / classes
    # sum(q) is 1: no digits are lost where p is near 1.
    return np.asarray((q * -np.expm1(log_probs)).sum(-1) + (1 - q.sum(-1)))


def gradient(
    logits: Array,
    labels: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    class_axis: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    sample_weight: Array | None = None,
    empty: str = "nan",
) -> Array:
    """``cross_entropy``'s by the logits, in closed form; with reduction "none", its sum's.

    Every loss is ``-sum_c q_c lp_c + z lse^2`` with ``q = w * (t (1-e) + e/C)``, where ``t`` is
    one-hot for class indices. By the scaled logits that is ``sum(q) p - q + 2 z lse p``; times
    ``(1 - tanh(x / softcap)^2) / temperature`` it is by the logits. 0 where ignored.
    """
    axis = class_dimension(logits.ndim, class_axis)
    options: dict[str, Any] = {"temperature": temperature, "softcap": softcap}
    w = _weights(weight, logits.shape[axis])
    if labels.dtype.kind in "iu":
        kept = np.asarray(labels != ignore_index)
        y = np.where(kept, labels, 0).astype(np.int64)
        t, counts = (np.arange(w.size) == y[..., None]).astype(np.longdouble), kept * w[y]
    else:
        t = np.moveaxis(widen(labels), axis, -1)
        kept = np.ones(t.shape[:-1], bool)
        counts = kept.astype(np.longdouble)
    samples = np.ones(kept.shape) if sample_weight is None else widen(sample_weight)
    q = w * (t * (1 - np.longdouble(label_smoothing)) + np.longdouble(label_smoothing) / w.size)
    with np.errstate(all="ignore"):
        p = np.moveaxis(softmax(logits, axis, **options), axis, -1)
        lse = log_sum_exp(logits, axis, **options)[..., None]
        by_scaled = q.sum(-1, keepdims=True) * p - q + (2 * z_loss * lse * p if z_loss else 0)
        factor = samples / np.longdouble(temperature)
        if reduction == "mean":
            total = (samples * counts).sum()
            factor = factor * (0 if total == 0 and empty == "zero" else 1 / total)
        slope = np.ones(1)
        if softcap is not None:  # 1 - tanh**2, which near the cap would have no digits left
            z = np.moveaxis(widen(logits), axis, -1) / np.longdouble(softcap)
            slope = 1 / np.cosh(z) ** 2
        by_logit = np.where(kept[..., None], factor[..., None] * by_scaled * slope, 0)
    return np.moveaxis(by_logit, -1, axis)


def _sampled(
    parts: list[Array], counted: Array, sample_weight: Array | None
) -> tuple[list[Array], Array]:
    """The addends, and what a mean divides by, times the sample weights; 0 where ignored."""
    if sample_weight is None:
        return parts, counted
    s, ignored = widen(sample_weight), np.ma.getmaskarray(counted)
    with np.errstate(all="ignore"):
        return [np.where(ignored, 0, part * s) for part in parts], counted * s


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
    Integers are exact.
    """
    assert isinstance(got, np.ndarray), type(got)
    assert got.shape == want.shape
    if got.dtype.kind == "i":
        np.testing.assert_array_equal(got, want)
        return
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(got[~finite], rounded[~finite])
        error = np.abs(got[finite].astype(np.longdouble) - want[finite])
        size = np.maximum(1, np.maximum(np.abs(want), scale))[finite]
    worst = float((error / size).max(initial=0.0))
    assert worst <= TOLERANCE[got.dtype], f"{worst:.3g} off, relative to max(1, |value|)"
