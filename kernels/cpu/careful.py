"""The slow, exact way, in float64, for rows that the fast one cannot represent.

Those hold NaN, +inf, nothing but -inf, or a maximum beyond ``rows.LARGEST_SHIFT``. Each is a
position of a loss: its logits lie ``stride`` elements apart from ``first`` on.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined

from kernels.cpu.arguments import place
from kernels.cpu.tile import CAREFUL, MASS, MINUS, SMOOTH, TOTAL, VALUE
from kernels.simd import element


@inlined
def careful_sum(x: Any, first: int, stride: int, classes: int, unit: float) -> tuple[float, float]:
    """``(total, largest)`` with sum(exp(unit * x)) = total * exp(unit * largest), in float64.

    ``total`` is NaN where PyTorch's log-softmax is: any NaN or +inf, or all -inf.
    """
    largest = -math.inf
    for c in range(classes):
        value = element(x, first + c * stride)
        if not value <= largest:  # a NaN gets in, and stays in
            largest = value
            if math.isnan(value):
                break
    if math.isnan(largest) or math.isinf(largest):
        return math.nan, largest
    total = 0.0
    for c in range(classes):
        total += math.exp(unit * (element(x, first + c * stride) - largest))
    return total, largest


@inlined
def careful_smooth(
    logits: Any, first: int, largest: float, soft: Any, soft_first: int, options: Any
) -> tuple[float, float]:
    """``(sum(q), sum(q * unit * (x - largest)))`` with q as in ``rows.sum_soft``, or the class
    weights alone where ``soft`` is empty.
    """
    mass, total = 0.0, 0.0
    for c in range(logits.classes):
        p = 1.0
        if soft.data.size:
            p = element(soft.data, soft_first + c * soft.class_stride)
            p = options.keep * p + options.spread
        q = options.lane_weight[c] * p
        mass += q
        if p != 0.0:
            gap = element(logits.data, first + c * logits.class_stride) - largest
            total += q * (options.unit * gap)
    return mass, total


@called
def careful_position(
    logits: Any, soft: Any, position: int, label: int, options: Any, scratch: Any, at: int
) -> None:
    """Fills in all that ``scratch`` holds of one position."""
    first, stride, unit = place(logits, position), logits.class_stride, options.unit
    to_base2 = 1.0 / options.to_nats
    total, largest = careful_sum(logits.data, first, stride, logits.classes, unit)
    scratch[TOTAL, at], scratch[CAREFUL, at] = total, 1.0
    if label >= 0:
        gap = element(logits.data, first + label * stride) - largest
        scratch[MINUS, at], scratch[VALUE, at] = to_base2 * (unit * gap), 0.0
    if options.lane_weight.size:
        soft_first = place(soft, position)
        mass, smooth = careful_smooth(logits, first, largest, soft, soft_first, options)
        scratch[MASS, at], scratch[SMOOTH, at] = mass, smooth * to_base2
