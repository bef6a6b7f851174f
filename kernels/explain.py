"""Intermediate arrays of a cross-entropy loss, and the loss by three routes that must agree.

The three routes are those of the project's worked example: the formula, NLL of the log-softmax, and
cross-entropy. Small inputs only: every intermediate array is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import kernels
from kernels import InvalidInput
from kernels.problem import Array
from kernels.reduce import SCALE
from kernels.tensors import widened

ROUTES = ("formula", "nll_loss", "cross_entropy")
DIFFERENCE = "largest_difference"


def chain(
    logits: Array,
    labels: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    class_axis: int | None = None,
    device: str = "cpu",
) -> dict[str, Array]:
    """All arrays between ``logits`` and the loss.

    ``softmax``, ``log_softmax``, ``one_hot`` (uint8, all zeros where the label is ignored) have the
    logits' shape; ``per_element`` has the labels', which are class indices; ``formula``,
    ``nll_loss`` and ``cross_entropy`` are the loss by each route, and ``largest_difference`` is
    their largest difference. Raises ``InvalidInput``.
    """
    if labels.dtype.kind not in "iu":
        raise InvalidInput(
            "explain takes labels that are class indices (integers), not class probabilities",
            field="labels",
        )
    options: dict[str, Any] = {
        "weight": weight,
        "ignore_index": ignore_index,
        "reduction": reduction,
        "class_axis": class_axis,
        "device": device,
    }
    # First, since this proves that every label is in range.
    direct = kernels.cross_entropy(logits, labels, outputs=["loss", "per_element"], **options)
    log_softmax = kernels.log_softmax(logits, class_axis=class_axis, device=device)
    axis = class_axis if class_axis is not None else min(1, logits.ndim - 1)
    counted = labels != ignore_index
    one_hot = _one_hot(labels, counted, logits.shape, axis)
    routes = (
        _formula(log_softmax, one_hot, counted, weight, reduction, axis),
        kernels.nll_loss(log_softmax, labels, **options),
        direct["loss"],
    )
    return {
        "softmax": kernels.softmax(logits, class_axis=class_axis, device=device),
        "log_softmax": log_softmax,
        "one_hot": one_hot,
        "per_element": direct["per_element"],
        **dict(zip(ROUTES, routes, strict=True)),
        DIFFERENCE: _largest_difference(routes),
    }


def _one_hot(labels: Array, counted: Array, shape: tuple[int, ...], axis: int) -> Array:
    # Written in place rather than made class-last and moved: it is an easy mistake to swap two axes
    # where the last one has to be moved.
    one_hot = np.zeros(shape, np.uint8)
    classes = np.where(counted, labels, 0).astype(np.int64)
    np.put_along_axis(one_hot, np.expand_dims(classes, axis), np.expand_dims(counted, axis), axis)
    return one_hot


def _formula(
    log_softmax: Array,
    one_hot: Array,
    counted: Array,
    weight: Array | None,
    reduction: str,
    axis: int,
) -> Array:
    """-sum(w * one_hot * log_softmax) / n, where n is the sum of the counted w.

    Sums are times SCALE, as in ``reduce``: a mean may be finite where its sum is not.
    """
    scale: Array = one_hot.astype(np.float64)
    if weight is not None:
        scale *= np.moveaxis(widened(weight).reshape((-1,) + (1,) * (scale.ndim - 1)), 0, axis)
    # A class that is not the label contributes nothing, even where its log-softmax is -inf.
    terms = np.multiply(scale, log_softmax, where=one_hot != 0, out=np.zeros_like(scale))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total = -(SCALE * terms).sum()
        total = total / (SCALE * scale).sum() if reduction == "mean" else total / SCALE
        return np.asarray(total).astype(log_softmax.dtype)


def _largest_difference(routes: tuple[Array, ...]) -> Array:
    values = np.stack(routes)
    # Three times NaN, or three times the same infinity, is no difference.
    if np.array_equal(values, np.broadcast_to(values[0], values.shape), equal_nan=True):
        return np.zeros((), values.dtype)
    return np.asarray(values.max() - values.min())
