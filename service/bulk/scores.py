"""Scores of a piece: from its tensors to a partial, in one call of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from kernels.answer import answers_of, counted, impossible_label, wanted
from kernels.devices import compute
from kernels.plan import Computed, ImpossibleLabel
from kernels.problem import Problem, check
from kernels.reduce import SCALE
from kernels.report.exact import ExactSums
from kernels.sequences import moved, summed
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
    compute: Compute = compute,
) -> tuple[Partial, dict[str, Array]]:
    """Score the rows of ``tensors``, whose first position is number ``position`` of the corpus.

    ``compute`` is called once. Returns the partial, and what is of each element in
    the labels' shape: ``per_element`` and ``prediction``. Raises ``InvalidInput``.
    """
    given: dict[str, Any] = {**tensors, **options}
    problem = check(**given)
    values, answers = _computed(problem, compute)
    labels, right = _right(problem, tensors, answers["prediction"])
    kept, exact = problem.counts, ExactSums(len(EXACT))
    if "sample_weight" in tensors:
        weights = kept * widened(np.asarray(tensors["sample_weight"])).astype(np.float64)
        kept = weights != 0.0
        for group, chosen in enumerate((kept & right, kept)):
            each = weights[chosen]
            exact.add(np.full(each.size, group), each)
    else:
        sums = [float(np.count_nonzero(kept & right)), float(np.count_nonzero(kept))]
        exact.add(np.arange(len(sums)), np.array(sums))
    elements, many = kept.size, int(np.count_nonzero(kept))
    counts = {"count": counted(problem, SCALE * float(values[1].sum())), "elements": elements}
    counts |= {"ignored": elements - many, "sequences": 0, "greedy": 0, "weighed": 0}
    if by_sequence(problem):
        counts |= _sequences(problem, answers, right, exact)
    predicted = moved(answers["prediction"], problem.shift, -1)
    places = worst_places(answers["per_element"], kept, worst)
    records = np.empty(len(places), WORST)
    records["position"] = places + position
    columns = {"loss": answers["per_element"], "label": labels, "predicted": predicted}
    for name, column in columns.items():
        records[name] = column.reshape(-1)[places]
    elementwise = {"per_element": answers["per_element"], "prediction": predicted}
    return Partial(position, counts, values, exact, records), elementwise


def by_sequence(problem: Problem) -> bool:
    """True where the labels are of sequences: of two axes and more, or with segments."""
    return len(problem.shape) > 1 or problem.segments is not None


def outputs_of(problem: Problem) -> tuple[str, ...]:
    """Arrays that kernels compute for a partial.

    The rank would tell what is right as well, but a kernel takes half as long again for it.
    """
    return (*wanted(problem, ["per_element", "prediction"]), *LOSSES)


def _right(problem: Problem, tensors: Mapping[str, Array], predicted: Array) -> tuple[Array, Array]:
    """Label of each element, the likeliest one of probabilities, and whether it is the predicted.

    It is not where a logit is NaN: then the class in ``predicted`` is one whose logit is.
    """
    logits, labels = np.asarray(tensors["logits"]), np.asarray(tensors["labels"])
    if problem.soft is not None:
        scored = labels = likeliest(np.moveaxis(labels, problem.axis, -1))
    else:  # where the logits are that score them
        assert problem.labels is not None
        scored = problem.labels.reshape(problem.shape)
    right = (predicted == scored) & ~is_nan(logits, predicted, problem.axis)
    return labels, moved(right, problem.shift, False)


def _computed(problem: Problem, compute: Compute) -> tuple[Array, dict[str, Array]]:
    """Losses and weights as they are added, float64 of shape (2, positions), and the outputs."""
    names = outputs_of(problem)
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
