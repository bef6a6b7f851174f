"""Temperature that minimises the cross-entropy of some rows of logits."""

from __future__ import annotations

import math
from collections.abc import Callable

# Of the best temperature to the current one, at most; its relative error; evaluations, at most.
_FARTHEST, _PRECISION, _PASSES = 64.0, 1e-4, 30
# Of a scale to the one before, at most.
_STRIDE = 8.0


def least(
    at: Callable[[float], tuple[float, float]], loss: float, slope: float
) -> tuple[float, float]:
    """Scale of the logits, 1 / temperature, where their loss is least, and that loss.

    ``at`` returns the loss and its derivative at a scale: ``loss`` and ``slope`` at 1. The loss is
    convex in the scale, and logits of a normal distribution make its derivative nearly linear: so
    its root is found by the secant method, within a bracket, in half of the evaluations that the
    Illinois method takes by the logarithm of the scale.
    """
    if not slope:
        return 1.0, loss
    low, high = (1.0 / _FARTHEST, 1.0) if slope > 0.0 else (1.0, _FARTHEST)
    before, scale, farther = 1.0, 0.5 if slope > 0.0 else 2.0, 1.0
    for number in range(_PASSES):
        slope_before = slope
        loss, slope = at(scale)
        low, high = (low, scale) if slope > 0.0 else (scale, high)
        if low == high or not slope or math.isnan(slope):  # a bound, or the root
            break
        change = slope_before - slope
        step = slope * (scale - before) / change if change else math.inf
        if abs(step) <= _PRECISION * scale:
            break
        # While slopes have one sign the root may be far: of separable rows it is at infinity.
        ahead = low == 1.0 / _FARTHEST or high == _FARTHEST
        farther = 4.0 * farther if number and ahead else 1.0
        before, scale = scale, _inside(scale, scale + farther * step, low, high)
    return scale, loss


def _inside(scale: float, wanted: float, low: float, high: float) -> float:
    """Scale to go to from ``scale``: as ``wanted``, within the bracket and not too far."""
    new = min(max(wanted, scale / _STRIDE), scale * _STRIDE)
    if low < new < high:
        return new
    bound = low if new <= low else high
    return bound if bound in (1.0 / _FARTHEST, _FARTHEST) else math.sqrt(low * high)
