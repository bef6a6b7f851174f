"""Scores of a piece: from its tensors to a partial, in one call of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, TypeAlias

import numpy as np

from kernels.answer import answers_of, counted, impossible_label
from kernels.devices import compute
from kernels.plan import Computed, ImpossibleLabel
from kernels.problem import Problem, check
from kernels.reduce import SCALE
from kernels.report.exact import ExactSums
from kernels.sequences import Sequences, moved, summed
from kernels.tensors import widened
from service.bulk.elements import is_nan, likeliest, worst_places
from service.bulk.partial import EXACT, WORST, Partial
from service.codecs.base import Array

LOSSES = ("losses", "weights")
# Function that computes arrays by name of a problem, as ``kernels.devices.compute`` does.
Compute: TypeAlias = Callable[[Problem, tuple[str, ...]], Computed]


def scored(
    tensors: Mapping[str, Array],
    options: Mapping[str, Any],
    position: int,
    worst: int,
    predicting: bool,
    compute: Compute = compute,
) -> tuple[Partial, dict[str, Array]]:
    """Score the rows of ``tensors``, whose first position is number ``position`` of the corpus.

    ``compute`` is called once. Returns the partial, and what is of each element in
    the labels' shape: ``per_element``, and ``prediction`` where ``predicting``. The partial has the
    same bits either way. Raises ``InvalidInput``.
    """
    given: dict[str, Any] = {**tensors, **options}
    problem = check(**given)
    values, answers = _computed(problem, compute, predicting)
    labels, right = _right(problem, tensors, answers)
    kept, exact = problem.counts, ExactSums(len(EXACT))
    if "sample_weight" in tensors:
        weights = kept * widened(np.asarray(tensors["sample_weight"])).astype(np.float64)
        kept = weights != 0.0
        for group, chosen in enumerate((kept & right, kept)):
            each = weights[chosen]
            exact.add(np.full(each.size, group), each)
    else:
        exact.add_whole([int(np.count_nonzero(kept & right)), int(np.count_nonzero(kept))])
    elements, many = kept.size, int(np.count_nonzero(kept))
    counts = {"count": counted(problem, SCALE * float(values[1].sum())), "elements": elements}
    counts |= {"ignored": elements - many, "sequences": 0, "greedy": 0, "weighed": 0}
    if by_sequence(problem):
        counts |= _sequences(problem, answers, right, exact)
    places = worst_places(answers["per_element"], kept, worst)
    records = np.empty(len(places), WORST)
    records["position"] = places + position
    records["loss"] = answers["per_element"].reshape(-1)[places]
    records["label"] = labels.reshape(-1)[places]
    elementwise = {"per_element": answers["per_element"]}
    if "prediction" in answers:
        elementwise["prediction"] = moved(answers["prediction"], problem.shift, -1)
        records["predicted"] = elementwise["prediction"].reshape(-1)[places]
    else:
        records["predicted"] = _predicted(problem, np.asarray(tensors["logits"]), places)
    return Partial(position, counts, values, exact, records), elementwise


def by_sequence(problem: Problem) -> bool:
    """True where the labels are of sequences: of two axes and more, or with segments."""
    return len(problem.shape) > 1 or problem.segments is not None


def outputs_of(problem: Problem, predicting: bool) -> tuple[str, ...]:
    """Arrays that kernels compute for a partial.

    What is right follows from the predictions, or where these are not wanted from
    ``sequence_greedy`` of sequences of one position (``_alone``): a label is compared until a
    larger logit is found, and not at all where its probability is above one half. In rows of 32000
    float32s that takes 0.2 ms of 64 MiB, the predictions 0.9 ms, and the losses 2.1 ms. Classes
    that are not neighbours are compared one by one, which takes longer than the predictions.
    """
    neighbours = problem.logits.strides[problem.axis] == problem.logits.itemsize
    judging = neighbours and problem.soft is None and not predicting
    beside = "sequence_greedy" if judging else "prediction"
    return ("per_element", beside, *LOSSES)


def _alone(problem: Problem) -> Problem:
    """``problem`` with each position a sequence of its own."""
    alone = copy(problem)
    places = np.arange(problem.positions).reshape(problem.shape)
    vars(alone)["sequences"] = Sequences((problem.positions,), places, False)  # a cached property
    return alone


def _right(
    problem: Problem, tensors: Mapping[str, Array], answers: Mapping[str, Array]
) -> tuple[Array, Array]:
    """Label of each element, the likeliest one of probabilities, and whether it is the predicted.

    It is not where a logit is NaN: then the class predicted is one whose logit is.
    """
    logits, labels = np.asarray(tensors["logits"]), np.asarray(tensors["labels"])
    if "sequence_greedy" in answers:
        return labels, answers["sequence_greedy"].reshape(problem.shape) != 0
    predicted = answers["prediction"]
    if problem.soft is not None:
        scored = labels = likeliest(np.moveaxis(labels, problem.axis, -1))
    else:  # where the logits are that score them
        assert problem.labels is not None
        scored = problem.labels.reshape(problem.shape)
    right = (predicted == scored) & ~is_nan(logits, predicted, problem.axis)
    return labels, moved(right, problem.shift, False)


def _predicted(problem: Problem, logits: Array, places: Array) -> list[int]:
    """Predictions of the elements at ``places``, indices in the flattened labels."""
    by_class = np.moveaxis(logits, problem.axis, -1)
    index = list(np.unravel_index(places, problem.shape))
    if problem.shift:
        index[1] = index[1] - problem.shift
    # One by one, or they would all be copied.
    each = zip(*(axis.tolist() for axis in index), strict=True)
    return [int(widened(by_class[place]).argmax()) for place in each]


def _computed(
    problem: Problem, compute: Compute, predicting: bool
) -> tuple[Array, dict[str, Array]]:
    """Losses and weights as they are added, float64 of shape (2, positions), and the outputs."""
    names = outputs_of(problem, predicting)
    if "sequence_greedy" in names:
        problem = _alone(problem)
    try:
        blocks, arrays = compute(problem, names)
    except ImpossibleLabel as error:
        raise impossible_label(problem, error.position) from None
    values = np.stack([arrays[name] for name in LOSSES])
    return values, answers_of(problem, names, blocks, arrays)


def _sequences(
    problem: Problem, answers: Mapping[str, Array], right: Array, exact: ExactSums
) -> dict[str, int]:
    """Count sequences with elements that count, and greedy ones; add their perplexities."""
    sequences, counts = problem.sequences, problem.counts
    kept = summed(counts, sequences) > 0
    greedy = kept & (summed(counts & ~right, sequences) == 0)
    loss, weight = (summed(answers[name], sequences) for name in ("per_element", "weights"))
    weighty = weight != 0.0
    with np.errstate(over="ignore"):
        each = np.exp(loss[weighty] / weight[weighty])
    exact.add(np.full(each.size, EXACT.index("perplexities")), each)
    return {
        "sequences": int(np.count_nonzero(kept)),
        "greedy": 0 if problem.soft is not None else int(np.count_nonzero(greedy)),
        "weighed": each.size,
    }
