"""What ``lossd score`` tells: the loss, how often the logits were right, where they were worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels import cross_entropy, dtypes
from service.options import CrossEntropyOptions

Array = np.ndarray[Any, Any]
Advance = Callable[[float], object]

# Bytes of logits that are compared at a time: enough to keep NumPy's loops busy.
_PIECE = 2**24


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its index in the labels, its label, the likeliest class, its loss."""

    position: list[int]
    label: int
    predicted: int
    loss: float


@dataclass(frozen=True, slots=True)
class Score:
    """The whole: ``perplexity`` is the exponential of ``loss``, the (weighted) mean.

    ``accuracy`` is the share of the elements not ignored whose likeliest class (the first of
    several alike) is their label, or the likeliest label where labels are probabilities. All three
    are NaN where there is nothing to take the mean of.
    """

    loss: float
    perplexity: float
    accuracy: float
    elements: int
    ignored: int
    worst: list[Element]


def score(
    tensors: Mapping[str, Array],
    chosen: CrossEntropyOptions,
    worst: int,
    advance: Advance = lambda share: None,
) -> Score:
    """Score ``tensors`` (logits, labels and maybe weights) and list the ``worst`` worst elements.

    The loss comes of one call of the kernel, so it has the bits that the service answers.
    ``advance`` is called with shares of the whole work, 1 in total, as they are done. Raises
    ``InvalidInput``.
    """
    logits, labels = tensors["logits"], tensors["labels"]
    outputs = cross_entropy(
        logits,
        labels,
        weight=tensors.get("weight"),
        sample_weight=tensors.get("sample_weight"),
        ignore_index=chosen.ignore_index,
        label_smoothing=chosen.label_smoothing,
        temperature=chosen.temperature,
        softcap=chosen.softcap,
        z_loss=chosen.z_loss,
        class_axis=chosen.class_axis,
        outputs=["loss", "per_element"],
    )
    advance(0.5)
    losses = outputs["per_element"]
    axis = min(logits.ndim - 1, 1) if chosen.class_axis is None else chosen.class_axis
    if labels.shape == logits.shape:
        labels = _likeliest(np.moveaxis(labels, axis, -1))
        counted = np.ones(losses.shape, bool)
    else:
        counted = np.asarray(labels != chosen.ignore_index)
    predicted = _likeliest(np.moveaxis(logits, axis, -1), advance)
    total = int(np.count_nonzero(counted))
    right = int(np.count_nonzero(counted & (predicted == labels)))
    return Score(
        loss=_plain(outputs["loss"]),
        perplexity=_exp(float(outputs["loss"])),
        accuracy=right / total if total else math.nan,
        elements=losses.size,
        ignored=losses.size - total,
        worst=[
            Element(
                position=list(position),
                label=int(labels[position]),
                predicted=int(predicted[position]),
                loss=_plain(losses[position]),
            )
            for position in _worst(losses, counted, worst)
        ],
    )


def _likeliest(by_class: Array, advance: Advance = lambda share: None) -> Array:
    """The index of the largest value along the last axis, the first of several alike."""
    rows = by_class if by_class.ndim > 1 else by_class[np.newaxis]
    found = np.empty(rows.shape[:-1], np.int64)
    step = max(1, _PIECE * len(rows) // max(1, rows.nbytes))
    for start in range(0, len(rows), step):
        piece = _comparable(rows[start : start + step])
        piece.argmax(-1, out=found[start : start + step])
        advance(len(piece) / len(rows) / 2)
    return found.reshape(by_class.shape[:-1])


def _comparable(array: Array) -> Array:
    """``array`` as numbers that NumPy can compare: for bfloat16, the upper halves of float32."""
    if dtypes.of(array) is not dtypes.BFLOAT16:
        return array
    return (array.view("<u2").astype("<u4") << 16).view("<f4")


def _worst(losses: Array, counted: Array, most: int) -> list[tuple[int, ...]]:
    """Where the largest losses are, the worst first: NaN is worst, what is ignored is left out."""
    badness = np.where(np.isnan(losses), np.inf, losses)
    badness = np.where(counted, badness, -np.inf).reshape(-1)
    count = min(most, int(np.count_nonzero(counted)))
    if not count:
        return []
    # Sorted in full, a million elements would take longer than their loss.
    worst = np.argpartition(-badness, count - 1)[:count]
    worst = worst[np.lexsort((worst, -badness[worst]))]
    return [tuple(map(int, np.unravel_index(index, losses.shape))) for index in worst]


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _plain(value: Any) -> float:
    """The number with the fewest digits that stands for ``value``: a float32 has 9, not 17."""
    return float(str(value))
