"""Kernel of the binary cross-entropy: a thread a logit; formulas as in ``cpu.loss.binary``."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numba import cuda

from kernels.cuda.kinds import TABLE, target
from kernels.cuda.loss.position import sample_of

device, element = target.device, target.element


@device
def target_of(soft: Any, labels: Any, position: int) -> float:
    """Label, or probability, of ``position``; NaN where it is ignored."""
    if soft.data.size:
        given = float(element(soft.data, position))
        return math.nan if given == float(labels.ignore_index) else given
    label = labels.classes[position]
    return math.nan if labels.ignores and label == labels.ignore_index else float(label)


@lru_cache
def binary_kernel() -> Any:
    """Kernel for losses and gradients, in float64."""

    @target.kernel(TABLE.threads)
    def binary(
        logits: Any, soft: Any, labels: Any, options: Any, results: Any, gradient: Any
    ) -> None:
        position = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if position >= logits.positions:
            return
        y, softly = target_of(soft, labels, position), soft.data.size > 0
        given = float(element(soft.data, position)) if softly else 0.0
        if softly and math.isnan(given) and options.tolerance < math.inf:
            cuda.atomic.min(results.status, 0, position)
        loss, weight, slope = 0.0, 0.0, 0.0
        if not math.isnan(y) or (softly and math.isnan(given)):
            right = y >= 0.0 and y <= 1.0 if softly else y == 0.0 or y == 1.0
            if not right and (not softly or options.tolerance < math.inf):
                cuda.atomic.min(results.status, 0, position)
            x, weight = float(element(logits.data, position)), sample_of(labels, position)
            positive = labels.positive[position] if labels.positive.size else 1.0
            factor = labels.factor[position] * weight if labels.factor.size else weight
            power = math.exp(-abs(x))
            rest, near = math.log1p(power), 1.0 / (1.0 + power)
            far = power * near
            # A positive NaN compares like a negative one, and stays in the logarithm.
            up, down = (x if x > 0.0 else 0.0) + rest, (-x if x < 0.0 else 0.0) + rest
            if y != 1.0:
                loss += (1.0 - y) * up
                slope += (1.0 - y) * (near if x > 0.0 else far)
            if y != 0.0:
                loss += positive * y * down
                slope -= positive * y * (far if x > 0.0 else near)
            loss, slope = loss * factor, slope * options.upstream * factor
            if weight == 0.0:
                loss, slope = 0.0, 0.0
        results.losses[position], results.weights[position] = loss, weight
        if results.per_element.size:
            results.per_element[position] = loss
        if gradient.data.size:
            gradient.data[position] = slope

    return binary
