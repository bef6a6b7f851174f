"""Outputs of a checked problem: their names, the reduction, and errors of impossible labels."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from kernels import binary, dtypes, mismatch
from kernels.devices import in_steps
from kernels.errors import InvalidInput
from kernels.out import with_out
from kernels.plan import (
    BY_SEQUENCE,
    PER_CLASS,
    PER_TOP,
    TABLE,
    ImpossibleLabel,
    Kind,
    finish,
    outputs_of,
)
from kernels.problem import Array, Problem
from kernels.reduce import SCALE, add_blocks
from kernels.sequences import moved, summed
from kernels.tensors import widened

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
_SCALARS = frozenset(name for name, row in TABLE.items() if row.kind is Kind.SCALAR)
# Outputs that are an array of ``plan.PER_POSITION`` as it is.
_SUMMANDS = {"loss_float64": "losses", "loss_weight": "weights"}


def answer(
    problem: Problem,
    outputs: Sequence[str] | None,
    out: Any = None,
    inputs: Mapping[str, Any] | None = None,
) -> Any:
    """Compute the loss, or a dict of ``outputs`` unless None; see ``out.with_out``.

    Raises ``InvalidInput``.
    """
    names = wanted(problem, ("loss",) if outputs is None else outputs)
    answers = finish(answer_in_steps(with_out(problem, names, out, inputs or {}), names))
    answers |= out or {}
    return answers["loss"] if outputs is None else {name: answers[name] for name in outputs}


def answer_in_steps(
    problem: Problem, names: tuple[str, ...], step: int | None = None
) -> Generator[int, None, dict[str, Array]]:
    """Compute the outputs ``names``, from ``wanted``; yields as ``launch.loss.in_steps`` does."""
    try:
        upstream = upstream_of(problem) if "gradient" in names else 1.0
        blocks, arrays = yield from in_steps(problem, names, upstream, step)
    except ImpossibleLabel as error:
        raise impossible_label(problem, error.position) from None
    return answers_of(problem, names, blocks, arrays)


def answers_of(
    problem: Problem, names: tuple[str, ...], blocks: Array, arrays: Mapping[str, Array]
) -> dict[str, Array]:
    """Outputs ``names`` from the ``Computed`` of ``devices.in_steps``."""
    answers = {
        name: array if _shaped(problem, name) else _at_labels(problem, name, array)
        for name, array in arrays.items()
        if name in names
    }
    answers |= {
        name: _at_labels(problem, made, arrays[made])
        for name, made in _SUMMANDS.items()
        if name in names
    }
    if not BY_SEQUENCE.isdisjoint(names):
        answers |= _by_sequence(problem, names, arrays)
    if not _SCALARS.isdisjoint(names):
        answers |= _scalars(problem, names, blocks)
    if "loss" in names and problem.reduction == "none":
        answers["loss"] = answers["per_element"]
    return answers


def _shaped(problem: Problem, name: str) -> bool:
    """Return True if the array of the output ``name`` is in its final shape."""
    return not problem.binary and (name in PER_CLASS or name in PER_TOP)


def _at_labels(problem: Problem, name: str, array: Array) -> Array:
    """``array`` in its shape; a value that depends on a label, at the position of that label."""
    if name in BY_SEQUENCE:
        return array.reshape(problem.sequences.shape)
    array = array.reshape(problem.shape)
    if problem.shift == 0:
        return array
    absent = TABLE[name].unlabelled if name in TABLE else 0.0
    return array if absent is None else moved(array, problem.shift, absent)


def _by_sequence(
    problem: Problem, names: tuple[str, ...], arrays: Mapping[str, Array]
) -> dict[str, Array]:
    """Outputs of ``names`` that are sums by sequence, of ``arrays`` where the logits lie.

    That is in the order of the labels: these are moved within a row.
    """
    sequences = problem.sequences
    found: dict[str, Array] = {}
    if problem.shift and not sequences.whole:
        sequences = sequences._replace(of=moved(sequences.of, -problem.shift, 0))
    if "sequence_loss" in names:
        found["sequence_loss"] = summed(arrays["per_element"], sequences)
    if "sequence_count" in names:
        found["sequence_count"] = summed(problem.kept, sequences).astype(np.int64)
    if "sequence_greedy" in names and "sequence_greedy" not in arrays:
        misses = problem.kept & (arrays["rank"] != 0)
        found["sequence_greedy"] = (summed(misses, sequences) == 0).astype(np.int64)
    if "sequence_perplexity" in names:
        loss, weight = (summed(arrays[name], sequences) for name in ("per_element", "weights"))
        kept = weight != 0.0
        with np.errstate(over="ignore"):
            each = np.exp(loss[kept] / weight[kept])
        nothing = problem.empty == "zero" and each.size == 0
        value = 1.0 if nothing else mean(float(each.sum()), each.size, problem.empty)
        found["sequence_perplexity"] = np.array(value)
    return found


def _scalars(problem: Problem, names: tuple[str, ...], blocks: Array) -> dict[str, Array]:
    """Outputs of ``names`` that are one value each, from the block sums of losses and weights."""
    total, weight = add_blocks(blocks)
    answers: dict[str, Array] = {}
    if "loss" in names and problem.reduction != "none":
        answers["loss"] = reduced(problem, total, weight)
    if "count" in names:
        answers["count"] = np.array(counted(problem, weight))
    if "weight_sum" in names:
        answers["weight_sum"] = np.array(weight / SCALE)
    if "loss_sum" in names:
        answers["loss_sum"] = np.array(total / SCALE)
    if "perplexity" in names:
        answers["perplexity"] = np.array(_exp(_mean(problem, total, weight)))
    if "bits_per_byte" in names:
        assert problem.bytes is not None
        answers["bits_per_byte"] = np.array(total / (SCALE * math.log(2.0) * problem.bytes))
    return answers


def counted(problem: Problem, weight: float) -> int:
    """Number of positions that are not ignored; ``weight`` is SCALE times the sum of weights."""
    if problem.labels is None and not problem.binary:
        return problem.positions
    if (problem.weight is None or problem.binary) and problem.sample_weight is None:
        return int(weight / SCALE)  # exact: each position that counts weighs 1
    if problem.binary:
        return int(np.count_nonzero(binary.kept(problem)))
    return int(np.count_nonzero(problem.counts))


def wanted(problem: Problem, outputs: Sequence[str]) -> tuple[str, ...]:
    """Names to compute for ``outputs``: theirs, and those that they are made of.

    Raises ``InvalidInput`` for outputs that are unknown, or that this problem has not.
    """
    known = outputs_of(problem.operation)
    more = ["per_element"] if problem.reduction == "none" else []
    for name in outputs:
        if name not in known:
            raise InvalidInput(
                f"outputs has {name!r:.50}, which is none of {', '.join(known)}", field="outputs"
            )
        row = TABLE[name]
        if problem.soft is not None and not row.soft:
            raise InvalidInput(
                f"{name} is that of a class index, and the labels are class probabilities",
                field="outputs",
            )
        if row.requires is not None and getattr(problem, row.requires) is None:
            raise InvalidInput(
                f"{name} needs {row.requires}, which is not given", field=row.requires
            )
        more += row.made_of
    if problem.device != "cpu" and "sequence_greedy" in outputs:
        more.append("rank")  # a GPU's kernels know no sequences
    return (*outputs, *more)


def upstream_of(problem: Problem) -> float:
    """Derivative of the reduced loss by each position's loss, before any kernel runs."""
    if problem.reduction != "mean":
        return 1.0
    weights = np.ones(problem.positions)
    if problem.binary:
        weights = binary.kept(problem).astype(np.float64)
    elif problem.labels is not None:
        kept = problem.labels != problem.ignore_index
        wrong = np.flatnonzero(kept & ((problem.labels < 0) | (problem.labels >= problem.classes)))
        if wrong.size:
            raise ImpossibleLabel(int(wrong[0]))
        weights = kept.astype(np.float64)
        if problem.weight is not None:
            weights[kept] = problem.weight[problem.labels[kept].astype(np.intp)]
    if problem.sample_weight is not None:
        weights = weights * problem.sample_weight
    denominator = float(weights.sum())
    return mean(1.0, denominator, problem.empty)


def impossible_label(problem: Problem, position: int) -> InvalidInput:
    """Error of the label or class probabilities at ``position``, counted in C order."""
    if problem.binary:
        return binary.impossible(problem, position)
    index = tuple(int(i) for i in np.unravel_index(position, problem.shape))
    if problem.shift:
        index = (index[0], index[1] + problem.shift, *index[2:])
    if problem.soft is not None:
        row = np.moveaxis(problem.soft, problem.axis, -1)[index]
        stored = next(entry for entry in dtypes.FLOATS if entry.load == row.dtype)
        row = widened(row.view(stored.numpy)).astype(np.float64)
        return mismatch.no_distribution(row, index, problem.axis, problem.tolerance)
    labels = problem.labels if problem.given is None else problem.given
    assert labels is not None
    return mismatch.no_class(
        int(labels.reshape(problem.shape)[index]), index, problem.classes, problem.ignore_index
    )


def reduced(problem: Problem, total: float, weight: float) -> Array:
    """Sum or mean of the losses, of the results' dtype; both arguments are SCALE times a sum."""
    value = _mean(problem, total, weight) if problem.reduction == "mean" else total / SCALE
    return narrowed(value, problem.dtype.result)


def _mean(problem: Problem, total: float, weight: float) -> float:
    plain = problem.label_smoothing == 0.0 and problem.z_loss == 0.0
    return mean(total, weight, problem.empty, plain and total != 0.0)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def narrowed(value: float, dtype: np.dtype[Any]) -> Array:
    """Convert a float64 result to ``dtype``; values beyond float32 become infinite there."""
    if abs(value) <= _LARGEST_FLOAT32:
        return np.array(value, dtype)
    with np.errstate(over="ignore"):
        return np.array(value).astype(dtype)


def mean(total: float, weight: float, empty: str, cancelled: bool = False) -> float:
    """``total / weight``, or by ``empty`` where the weight is 0.

    ``cancelled``: weights were given and sum to 0; then the mean is infinite, as in PyTorch. Raises
    ``InvalidInput`` if ``empty`` is "error".
    """
    if weight != 0.0:
        return total / weight
    if cancelled:
        return math.copysign(math.inf, total) if total == total else math.nan
    if empty == "error":
        raise InvalidInput(
            "the mean is over nothing: there are no labels, or all are ignored or weigh 0",
            field="labels",
        )
    return 0.0 if empty == "zero" else math.nan
