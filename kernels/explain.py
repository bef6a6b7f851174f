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
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    device: str = "cpu",
) -> dict[str, Array]:
    """All arrays between ``logits`` and the loss.

    ``softmax``, ``log_softmax``, ``one_hot`` (uint8, all zeros where the label is ignored) have the
    logits' shape; ``per_element`` has the labels', which are class indices; ``formula``,
    ``nll_loss`` and ``cross_entropy`` are the loss by each route, and ``largest_difference`` is
    their largest difference. Smoothed labels are ``(1 - e) * one_hot + e / C``: ``nll_loss`` then
    is ``1 - e`` times the loss of the label and ``e`` times the mean of the losses of all classes.
    Raises ``InvalidInput``.
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
    logit_options: dict[str, Any] = {"temperature": temperature, "class_axis": class_axis}
    # First, since this proves that every label is in range.
    direct = kernels.cross_entropy(
        logits,
        labels,
        outputs=["loss", "per_element"],
        temperature=temperature,
        label_smoothing=label_smoothing,
        **options,
    )
    log_softmax = kernels.log_softmax(logits, device=device, **logit_options)
    axis = class_axis if class_axis is not None else min(1, logits.ndim - 1)
    counted = labels != ignore_index
    one_hot = _one_hot(labels, counted, logits.shape, axis)
    # (N, ..., C): a class's share of its label, times its weight.
    label_share = np.moveaxis(one_hot, axis, -1).astype(np.float64)
    even_share = np.broadcast_to(counted[..., None], label_share.shape) / max(1, logits.shape[axis])
    if weight is not None:
        label_share, even_share = label_share * widened(weight), even_share * widened(weight)
    log_probs = np.moveaxis(log_softmax, axis, -1)
    count = label_share if reduction == "mean" else None
    smoothed = (1 - label_smoothing) * label_share + label_smoothing * even_share
    by_nll = kernels.nll_loss(log_softmax, labels, **options)
    if label_smoothing:
        even = _formula(log_probs, even_share, count)
        with np.errstate(invalid="ignore", over="ignore"):
            mixed = (1 - label_smoothing) * by_nll + label_smoothing * even
        by_nll = np.asarray(mixed, log_softmax.dtype)
    routes = (_formula(log_probs, smoothed, count), by_nll, direct["loss"])
    return {
        "softmax": kernels.softmax(logits, device=device, **logit_options),
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


def _formula(log_probs: Array, share: Array, count: Array | None) -> Array:
    """-sum(share * log_probs), divided by the sum of ``count`` if it is given: a mean.

    Sums are times SCALE, as in ``reduce``: a mean may be finite where its sum is not.
    """
    # A class without a share contributes nothing, even where its log-softmax is -inf.
    terms = np.multiply(share, log_probs, where=share != 0, out=np.zeros_like(share))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total = -(SCALE * terms).sum()
        total = total / SCALE if count is None else total / (SCALE * count).sum()
        return np.asarray(total).astype(log_probs.dtype)


def _largest_difference(routes: tuple[Array, ...]) -> Array:
    values = np.stack(routes)
    # Three times NaN, or three times the same infinity, is no difference.
    if np.array_equal(values, np.broadcast_to(values[0], values.shape), equal_nan=True):
        return np.zeros((), values.dtype)
    return np.asarray(values.max() - values.min())
