"""Outputs of a checked divergence: their names, and the reduction."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from kernels import devices
from kernels.answer import mean, narrowed
from kernels.divergence import Divergence, refused
from kernels.errors import InvalidInput
from kernels.plan import TABLE, ImpossibleLabel, Kind, outputs_of
from kernels.problem import Array
from kernels.reduce import SCALE, add_blocks, sum_all_blocks

OUTPUTS = outputs_of("kl_div")
_LOGS = TABLE["delta_p"].made_of


def wanted(problem: Divergence, outputs: Sequence[str]) -> tuple[str, ...]:
    """Names to compute for ``outputs``: theirs, and those that they are made of.

    Raises ``InvalidInput`` for outputs that are unknown, or need labels where there are none.
    """
    more: list[str] = []
    for name in outputs:
        if name not in OUTPUTS:
            raise InvalidInput(
                f"outputs has {name!r:.50}, which is none of {', '.join(OUTPUTS)}", field="outputs"
            )
        if TABLE[name].requires == "labels" and problem.labels is None:
            raise InvalidInput(
                f"{name} is that of the label, and no labels are given", field="labels"
            )
        more += TABLE[name].made_of
    return (*outputs, *more)


def answer_in_steps(
    problem: Divergence, names: tuple[str, ...], step: int | None = None
) -> Generator[int, None, dict[str, Array]]:
    """Compute the outputs ``names``, from ``wanted``; yields as ``launch.loss.in_steps`` does."""
    upstream = _upstream(problem) if "gradient" in names else 1.0
    try:
        losses, arrays = yield from devices.divergence_in_steps(problem, names, upstream, step)
    except ImpossibleLabel as error:
        raise refused(problem, error.position) from None
    arrays = {"per_element": losses, **arrays}
    if "delta_p" in names:
        student, teacher = (np.exp(arrays[name]) for name in _LOGS)
        arrays["delta_p"] = np.where(problem.kept, student - teacher, 0.0)
    answers: dict[str, Array] = {}
    for name in names:
        if name == "gradient":
            answers[name] = arrays[name]
        elif name in arrays:
            answers[name] = _at_labels(problem, name, arrays[name])
    return {**answers, **_scalars(problem, names, losses)}


def _at_labels(problem: Divergence, name: str, values: Array) -> Array:
    moved = problem.at_labels(values, TABLE[name].unlabelled or 0)
    if moved.dtype == np.int64:
        return np.asarray(moved, order="C")
    with np.errstate(over="ignore"):
        return np.asarray(moved, problem.dtype.result, order="C")


def _scalars(problem: Divergence, names: tuple[str, ...], losses: Array) -> dict[str, Array]:
    scalars: dict[str, Any] = {}
    if not any(TABLE[name].kind is Kind.SCALAR for name in names):
        return scalars
    moved = [problem.at_labels(values, 0.0).reshape(-1) for values in (losses, problem.weight)]
    total, weight = add_blocks(sum_all_blocks(np.stack(moved)))
    if "loss" in names:
        scalars["loss"] = _reduced(problem, losses, total, weight)
    if "count" in names:
        scalars["count"] = np.array(int(problem.kept.sum(dtype=np.int64)))
    if "weight_sum" in names:
        scalars["weight_sum"] = np.array(weight / SCALE)
    if "loss_sum" in names:
        scalars["loss_sum"] = np.array(total / SCALE)
    return scalars


def _reduced(problem: Divergence, losses: Array, total: float, weight: float) -> Array:
    if problem.reduction == "none":
        return _at_labels(problem, "per_element", losses)
    if problem.reduction == "mean":
        total = mean(total, weight, problem.empty, total != 0.0)
    else:
        total /= SCALE
    return narrowed(total, problem.dtype.result)


def _upstream(problem: Divergence) -> float:
    """Derivative of the reduced loss by each position's weighted divergence."""
    if problem.reduction != "mean":
        return 1.0
    return mean(1.0, float(problem.weight.sum()), problem.empty)
