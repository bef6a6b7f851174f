"""The slow, exact way, in float64, for rows that the fast one cannot represent.

Those hold NaN, +inf, nothing but -inf, or a maximum beyond ``rows.LARGEST_SHIFT``. Each is a
position of a loss: its logits lie ``stride`` elements apart from ``first`` on.
"""

from __future__ import annotations

import math
from typing import Any

from numba import types
from numba.extending import overload

from kernels.compiled import INLINED, called, inlined
from kernels.cpu.arguments import place
from kernels.cpu.tile import CAREFUL, LEAST, MASS, MINUS, PEAK, SHARES, SMOOTH, TOTAL, VALUE
from kernels.simd import element


def exact(x: Any, index: int, cap: Any) -> float:
    """One logit in float64; see ``logit``."""
    raise NotImplementedError("for compiled code only")


@overload(exact, jit_options=INLINED)
def _exact(x: Any, index: Any, cap: Any) -> Any:
    if cap == types.none:

        def uncapped(x: Any, index: Any, cap: Any) -> Any:
            return element(x, index)

        return uncapped

    def softly(x: Any, index: Any, cap: Any) -> Any:
        return cap * math.tanh(element(x, index) / cap)

    return softly


def exact_slope(value: float, cap: Any) -> float:
    """The derivative of a logit of that value by its element; see ``logit.slope``."""
    raise NotImplementedError("for compiled code only")


@overload(exact_slope, jit_options=INLINED)
def _exact_slope(value: Any, cap: Any) -> Any:
    if cap == types.none:

        def uncapped(value: Any, cap: Any) -> Any:
            return 1.0

        return uncapped

    def softly(value: Any, cap: Any) -> Any:
        return 1.0 - (value / cap) * (value / cap)

    return softly


@inlined
def careful_sum(view: Any, position: int, options: Any) -> tuple[float, float]:
    """``(total, largest)`` with sum(exp(unit * x)) = total * exp(unit * largest), in float64.

    ``total`` is NaN where PyTorch's log-softmax is: any NaN or +inf, or all -inf.
    """
    x, first, stride, cap = view.data, place(view, position), view.class_stride, options.cap
    largest = -math.inf
    for c in range(view.classes):
        value = exact(x, first + c * stride, cap)
        if not value <= largest:  # a NaN gets in, and stays in
            largest = value
            if math.isnan(value):
                break
    if math.isnan(largest) or math.isinf(largest):
        return math.nan, largest
    total = 0.0
    for c in range(view.classes):
        total += math.exp(options.unit * (exact(x, first + c * stride, cap) - largest))
    return total, largest


@inlined
def careful_smooth(
    logits: Any, first: int, largest: float, soft: Any, soft_first: int, options: Any
) -> tuple[float, float, float, float]:
    """``(sum(q), sum(q * unit * (x - largest)))`` with q as in ``rows.sum_soft``, or the class
    weights alone where ``soft`` is empty; then the last two of that.
    """
    mass, total, shares, least = 0.0, 0.0, 0.0, 0.0
    for c in range(logits.classes):
        p = 1.0
        if soft.data.size:
            p = element(soft.data, soft_first + c * soft.class_stride)
            shares += p
            least = p if p < least else least
            p = options.keep * p + options.spread
        q = options.lane_weight[c] * p
        mass += q
        if p != 0.0:
            gap = exact(logits.data, first + c * logits.class_stride, options.cap) - largest
            total += q * (options.unit * gap)
    return mass, total, shares, least


@called
def careful_position(
    logits: Any, soft: Any, position: int, label: int, options: Any, scratch: Any, at: int
) -> None:
    """Fills in all that ``scratch`` holds of one position."""
    first, stride, unit = place(logits, position), logits.class_stride, options.unit
    to_base2 = 1.0 / options.to_nats
    total, largest = careful_sum(logits, position, options)
    scratch[TOTAL, at], scratch[CAREFUL, at], scratch[PEAK, at] = total, 1.0, largest
    if label >= 0:
        gap = exact(logits.data, first + label * stride, options.cap) - largest
        scratch[MINUS, at], scratch[VALUE, at] = to_base2 * (unit * gap), 0.0
    if options.lane_weight.size:
        soft_first = place(soft, position)
        mass, smooth, shares, least = careful_smooth(
            logits, first, largest, soft, soft_first, options
        )
        scratch[MASS, at], scratch[SMOOTH, at] = mass, smooth * to_base2
        scratch[SHARES, at], scratch[LEAST, at] = shares, least
