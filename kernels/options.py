"""Constants of a loss's arithmetic, from the options of a checked problem; for both targets."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from kernels.dtypes import DType
from kernels.formula import LOG2E
from kernels.plan import BESIDE_LOSS, OF_IGNORED
from kernels.problem import Problem


class Options(NamedTuple):
    """Constants of the arithmetic, besides the tensors.

    ``scale`` turns logits into exponents of 2, and ``to_nats`` a loss in base 2 into nats.
    ``unit`` (1 / temperature) multiplies the logits after the soft ``cap`` (None: no cap).
    ``keep`` is 1 - label smoothing, ``spread`` is label smoothing / classes; ``focal`` is gamma.
    ``weight`` is float64, one a class, or empty; ``lane_weight`` is the same in the logits' compute
    type: ones where no weights were given, empty where nothing sums over classes; ``mass`` is its
    sum. ``probs``: softmax is wanted, not its logarithm. ``upstream`` is the derivative by each
    position's loss of the value whose gradient is wanted. ``outputs``: some beside the loss are
    wanted; ``ignored_too``: some of ignored positions. ``segments`` holds ``sums.rows.sum_part``
    of each segment of each row, where threads share rows, or is empty. ``tolerance`` is the largest
    difference from 1 of a position's sum of class probabilities; infinite where they are not
    checked. In a binary cross-entropy ``weight`` is that of positive labels and ``factor`` that of
    all, each with its run (``binary.check``).
    """

    scale: float
    to_nats: float
    unit: float
    cap: Any
    keep: float
    spread: float
    z_loss: float
    focal: float
    weight: Any
    lane_weight: Any
    mass: float
    probs: bool
    upstream: float
    outputs: bool
    ignored_too: bool
    segments: Any
    tolerance: float
    weight_run: int
    factor: Any
    factor_run: int


@lru_cache  # made anew it takes 6 us, of a small loss's 25
def _constants(
    dtype: DType, temperature: float, cap: float | None, wanted: tuple[str, ...]
) -> Options:
    unit = 1.0 / temperature
    scale = float(dtype.result.type(LOG2E * unit))
    return Options(
        scale=scale,
        to_nats=unit / scale,
        unit=unit,
        cap=cap,
        keep=1.0,
        spread=0.0,
        z_loss=0.0,
        focal=0.0,
        weight=np.empty(0),
        lane_weight=np.empty(0, dtype.result),
        mass=0.0,
        probs="probs" in wanted,
        upstream=1.0,
        outputs=not BESIDE_LOSS.isdisjoint(wanted),
        ignored_too=not OF_IGNORED.isdisjoint(wanted),
        segments=np.empty((0, 2)),
        tolerance=math.inf,
        weight_run=1,
        factor=np.empty(0),
        factor_run=1,
    )


def options_of(problem: Problem, wanted: tuple[str, ...], upstream: float) -> Options:
    """``Options`` of ``problem`` and the outputs ``wanted``."""
    changes: dict[str, Any] = {
        "z_loss": problem.z_loss,
        "focal": problem.focal,
        "upstream": upstream,
    }
    if problem.normalised:
        changes["to_nats"] = 1.0
    if problem.weight is not None:
        changes["weight"] = problem.weight
    if problem.binary:
        changes["weight_run"], changes["factor_run"] = problem.weight_run, problem.factor_run
        if problem.factor is not None:
            changes["factor"] = problem.factor
    elif problem.soft is not None or problem.label_smoothing > 0.0:
        each = np.ones(problem.classes) if problem.weight is None else problem.weight
        changes["keep"] = 1.0 - problem.label_smoothing
        changes["spread"] = problem.label_smoothing / problem.classes
        with np.errstate(over="ignore"):  # losses with infinite weights go to ``careful``
            changes["lane_weight"] = each.astype(problem.dtype.result)
        changes["mass"] = float(each.sum())
    if problem.soft is not None:
        changes["tolerance"] = problem.tolerance
    constants = _constants(problem.dtype, problem.temperature, problem.softcap, wanted)
    return constants._replace(**changes)
