"""Scores of ``lossd score``: the loss, the accuracy and the worst elements of logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels import steps
from kernels.accumulate import SUMS
from kernels.plan import STEP
from kernels.sequences import moved
from kernels.tensors import widened
from service.bulk.elements import is_nan, likeliest, worst_places
from service.bulk.terms import OPTIONS
from service.options import CrossEntropyOptions

Array = np.ndarray[Any, Any]
Advance = Callable[[float], object]

_TENSORS = ("weight", "sample_weight", "mask", "segments")


@dataclass(frozen=True, slots=True)
class Element:
    """Element of the labels: its index, its label, the likeliest class, its loss."""

    position: list[int]
    label: int
    predicted: int
    loss: float


@dataclass(frozen=True, slots=True)
class BySequence:
    """Scores of sequences (rows of the labels, or ``segments``) that have elements that count.

    ``greedy`` is the share of those whose labels are all the likeliest class, None where labels are
    probabilities; ``perplexity`` is the mean of their perplexities.
    """

    sequences: int
    greedy: float | None
    perplexity: float


@dataclass(frozen=True, slots=True)
class Score:
    """Scores of all elements: ``perplexity`` is the exponential of ``loss``, the weighted mean.

    ``count``, ``weight_sum`` and ``loss_sum`` are those that ``kernels.merge`` takes.
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
    count: int
    weight_sum: float
    loss_sum: float
    bits_per_byte: float | None
    by_sequence: BySequence | None
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
    rows = labels.ndim - soft > 1 or "segments" in tensors
    wanted = ["loss", "perplexity", "per_element", "prediction", *SUMS]
    wanted += ["rank"] * (not soft) + ["bits_per_byte"] * (chosen.bytes is not None)
    if rows:
        wanted += ["sequence_count", "sequence_perplexity"] + ["sequence_greedy"] * (not soft)
    own: dict[str, Any] = {name: tensors.get(name) for name in _TENSORS}
    work = steps.cross_entropy(
        logits,
        labels,
        outputs=wanted,
        **own,
        **{name: getattr(chosen, name) for name in OPTIONS},
    )
    outputs = _run(work, logits.nbytes, advance)
    losses, predicted = outputs["per_element"], moved(outputs["prediction"], chosen.shift, -1)
    if soft:
        axis = min(logits.ndim - 1, 1) if chosen.class_axis is None else chosen.class_axis
        labels = likeliest(np.moveaxis(labels, axis, -1))
        right = (predicted == labels) & ~is_nan(logits, predicted, axis)
        weights = np.ones(losses.shape)
    else:
        right = outputs["rank"] == 0
        kept = np.asarray(labels != chosen.ignore_index)
        kept = kept & moved(np.ones(labels.shape, np.bool_), chosen.shift, False)
        if "mask" in tensors:
            kept = kept & (tensors["mask"] != 0)
        weights = kept.astype(np.float64)
    if "sample_weight" in tensors:
        weights *= widened(tensors["sample_weight"])
    counted = weights != 0.0
    total = float(weights.sum())
    return Score(
        loss=_plain(outputs["loss"]),
        perplexity=float(outputs["perplexity"]),
        accuracy=float(weights[right].sum()) / total if total else math.nan,
        elements=losses.size,
        ignored=losses.size - int(np.count_nonzero(counted)),
        count=int(outputs["count"]),
        weight_sum=float(outputs["weight_sum"]),
        loss_sum=float(outputs["loss_sum"]),
        bits_per_byte=None if chosen.bytes is None else float(outputs["bits_per_byte"]),
        by_sequence=_by_sequence(outputs) if rows else None,
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


def _by_sequence(outputs: Mapping[str, Array]) -> BySequence:
    kept = outputs["sequence_count"] > 0
    many = int(np.count_nonzero(kept))
    greedy: float | None = None
    if "sequence_greedy" in outputs:
        hits = np.count_nonzero(kept & (outputs["sequence_greedy"] != 0))
        greedy = float(hits) / many if many else math.nan
    return BySequence(many, greedy, float(outputs["sequence_perplexity"]))


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


def _worst(losses: Array, counted: Array, most: int) -> list[tuple[int, ...]]:
    """Return the positions of the ``most`` worst elements, the worst first."""
    places = worst_places(losses, counted, most)
    return [tuple(map(int, np.unravel_index(index, losses.shape))) for index in places]


def _plain(value: Any) -> float:
    """Return the float of ``value``'s shortest text: a float32 has 9 digits, not 17."""
    return float(str(value))
