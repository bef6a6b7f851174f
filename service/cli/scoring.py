"""Scores of ``lossd score``: the loss, the accuracy and the worst elements of logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels import steps
from kernels.plan import STEP
from kernels.tensors import widened
from service.options import CrossEntropyOptions

Array = np.ndarray[Any, Any]
Advance = Callable[[float], object]

# Options that count for a score.
OPTIONS = (
    "class_axis",
    "ignore_index",
    "label_smoothing",
    "temperature",
    "softcap",
    "z_loss",
    "check_probabilities",
)
# Bytes of probabilities that are compared at a time: large enough for NumPy's loops.
_PIECE = 2**24


@dataclass(frozen=True, slots=True)
class Element:
    """Element of the labels: its index, its label, the likeliest class, its loss."""

    position: list[int]
    label: int
    predicted: int
    loss: float


@dataclass(frozen=True, slots=True)
class Score:
    """Scores of all elements: ``perplexity`` is the exponential of ``loss``, the weighted mean.

    ``accuracy`` is the share of the elements, not ignored, whose label is the likeliest class (the
    first of equals), or the likeliest label where labels are probabilities. Each counts by its
    ``sample_weight``, and one with a NaN among its logits is wrong. All three are NaN if every
    element is ignored. ``ignored`` counts the elements whose label is ``ignore_index``, or whose
    ``sample_weight`` is 0.
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
    """Score ``tensors`` (logits, labels, optional weights) and list the ``worst`` worst elements.

    One call of the kernel computes all of it, so the loss has the bits that the service answers.
    ``advance`` is called with shares of the work as they are done, 1 in total. Raises
    ``InvalidInput``.
    """
    logits, labels = tensors["logits"], tensors["labels"]
    soft = labels.shape == logits.shape
    wanted = ["loss", "per_element", "prediction"] + ["rank"] * (not soft)
    work = steps.cross_entropy(
        logits,
        labels,
        weight=tensors.get("weight"),
        sample_weight=tensors.get("sample_weight"),
        outputs=wanted,
        **{name: getattr(chosen, name) for name in OPTIONS},
    )
    outputs = _run(work, logits.nbytes, advance)
    losses, predicted = outputs["per_element"], outputs["prediction"]
    if soft:
        axis = min(logits.ndim - 1, 1) if chosen.class_axis is None else chosen.class_axis
        labels = _likeliest(np.moveaxis(labels, axis, -1))
        right = (predicted == labels) & ~_is_nan(logits, predicted, axis)
        weights = np.ones(losses.shape)
    else:
        right = outputs["rank"] == 0
        weights = np.asarray(labels != chosen.ignore_index).astype(np.float64)
    if "sample_weight" in tensors:
        weights *= widened(tensors["sample_weight"])
    counted = weights != 0.0
    total = float(weights.sum())
    return Score(
        loss=_plain(outputs["loss"]),
        perplexity=_exp(float(outputs["loss"])),
        accuracy=float(weights[right].sum()) / total if total else math.nan,
        elements=losses.size,
        ignored=losses.size - int(np.count_nonzero(counted)),
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


def _run(work: steps.Work, size: int, advance: Advance) -> Mapping[str, Array]:
    """Return the outputs of ``work`` on ``size`` bytes of logits, about ``STEP`` of them a step."""
    share = min(1.0, STEP / size) if size else 1.0
    begun, left = False, 1.0
    while True:
        try:
            next(work.steps)
        except StopIteration as stopped:
            advance(left)
            outputs: Mapping[str, Array] = stopped.value
            return outputs
        done = min(share, left) if begun else 0.0
        advance(done)
        begun, left = True, left - done


def _is_nan(logits: Array, classes: Array, axis: int) -> Array:
    """Tell for each element whether the logit of its class in ``classes`` is NaN.

    For predicted classes that is whether any of its logits is.
    """
    chosen = np.take_along_axis(logits, np.expand_dims(classes, axis), axis)
    return np.isnan(widened(chosen.squeeze(axis)))


def _likeliest(by_class: Array) -> Array:
    """Return the index of the largest value along the last axis, the first of equals."""
    rows = by_class if by_class.ndim > 1 else by_class[np.newaxis]
    found = np.empty(rows.shape[:-1], np.int64)
    step = max(1, _PIECE * len(rows) // max(1, rows.nbytes))
    for start in range(0, len(rows), step):
        widened(rows[start : start + step]).argmax(-1, out=found[start : start + step])
    return found.reshape(by_class.shape[:-1])


def _worst(losses: Array, counted: Array, most: int) -> list[tuple[int, ...]]:
    """Return the positions of the ``most`` largest losses, NaN before all, of the counted elements.

    The worst comes first, and of equals the first position.
    """
    places = np.flatnonzero(counted)
    values = losses.reshape(-1)[places].astype(np.float64)
    nan = np.isnan(values)
    found = list(places[nan][:most])
    places, values = places[~nan], values[~nan]
    most -= len(found)
    if len(values) > most > 0:
        # A full sort of a million elements would take longer than their loss.
        least = np.partition(values, -most)[-most]
        alike = np.flatnonzero(values == least)[:most]
        kept = np.concatenate([np.flatnonzero(values > least), alike])
        places, values = places[kept], values[kept]
    found += list(places[np.lexsort((places, -values))][: max(most, 0)])
    return [tuple(map(int, np.unravel_index(index, losses.shape))) for index in found]


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _plain(value: Any) -> float:
    """Return the float of ``value``'s shortest text: a float32 has 9 digits, not 17."""
    return float(str(value))
