"""The slow, exact way, in float64, for rows that the fast one cannot represent.

Those hold NaN, +inf, nothing but -inf, or a maximum beyond ``rows.LARGEST_SHIFT``; or terms of
their loss are beyond ``tile.FAR`` or the range of the lanes. Each is a position of a loss: its
logits lie ``stride`` elements apart from ``first`` on.
"""

from __future__ import annotations

import math
from typing import Any

from numba import types
from numba.extending import overload

from kernels.compiled import INLINED, called, inlined
from kernels.cpu.arguments import place
from kernels.cpu.tile import (
    CAREFUL,
    LEAST,
    LOSS,
    MASS,
    MINUS,
    PEAK,
    SHARES,
    SMOOTH,
    TINY,
    TOTAL,
    VALUE,
    WEIGHT,
    log_sum_exp,
)
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


def exact_slope(raw: float, cap: Any) -> float:
    """The derivative of a logit by its element ``raw``; see ``logit.slope``."""
    raise NotImplementedError("for compiled code only")


@overload(exact_slope, jit_options=INLINED)
def _exact_slope(raw: Any, cap: Any) -> Any:
    if cap == types.none:

        def uncapped(raw: Any, cap: Any) -> Any:
            return 1.0

        return uncapped

    def softly(raw: Any, cap: Any) -> Any:
        power = math.exp(-2.0 * abs(raw / cap))
        return 4.0 * power / ((1.0 + power) * (1.0 + power))

    return softly


@inlined
def class_weight(options: Any, c: int) -> float:
    """The weight of a class in float64: ``lane_weight`` may be infinite where this is not."""
    return options.weight[c] if options.weight.size else 1.0


@inlined
def scaled_gap(value: float, largest: float, unit: float) -> float:
    """A gap between logits times ``unit``, by halves: alone it may be twice what float64 holds."""
    return (2.0 * unit) * (0.5 * value - 0.5 * largest)


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
def _careful_smooth(
    logits: Any, first: int, largest: float, soft: Any, soft_first: int, options: Any
) -> tuple[float, float, float, float]:
    """``(sum(q), TINY * sum(r * unit * (x - largest)))`` with q as in ``rows.sum_soft``, and r the
    same; or, where ``soft`` is empty, q the class weights, and r ``spread`` times these. Then the
    sum of the class probabilities, and the least of them and 0.
    """
    mass, total, shares, least = 0.0, 0.0, 0.0, 0.0
    for c in range(logits.classes):
        p, spread = 1.0, options.spread
        if soft.data.size:
            p = element(soft.data, soft_first + c * soft.class_stride)
            shares += p
            least = p if p < least else least
            p, spread = options.keep * p + options.spread, 1.0
        q = class_weight(options, c) * p
        mass += q
        if p != 0.0:
            value = exact(logits.data, first + c * logits.class_stride, options.cap)
            total += (q * spread) * scaled_gap(value, largest, TINY * options.unit)
    return mass, total, shares, least


@called
def careful_position(
    logits: Any, soft: Any, position: int, label: int, options: Any, scratch: Any, at: int
) -> None:
    """Fills in all that ``scratch`` holds of one position. VALUE is TINY times the label's
    log-probability in nats (that of class 0 where there is no label), SMOOTH as in
    ``_careful_smooth``.
    """
    first, stride, unit = place(logits, position), logits.class_stride, options.unit
    total, largest = careful_sum(logits, position, options)
    scratch[TOTAL, at], scratch[CAREFUL, at], scratch[PEAK, at] = total, 1.0, largest
    own = exact(logits.data, first + max(label, 0) * stride, options.cap)
    gap = scaled_gap(own, largest, TINY * unit)
    scratch[MINUS, at], scratch[VALUE, at] = 0.0, gap - TINY * math.log(total)
    if options.lane_weight.size:
        soft_first = place(soft, position)
        mass, smooth, shares, least = _careful_smooth(
            logits, first, largest, soft, soft_first, options
        )
        scratch[MASS, at], scratch[SMOOTH, at] = mass, smooth
        scratch[SHARES, at], scratch[LEAST, at] = shares, least


@called
def weigh_careful(
    scratch: Any, label: Any, soft: bool, labels: Any, lo: int, count: int, options: Any
) -> None:
    """LOSS and WEIGHT, as ``tile.weigh_tile`` has them, of the positions that are careful ones."""
    for i in range(count):
        if scratch[CAREFUL, i] == 0.0 or (label[i] < 0 and not soft):
            continue
        loss, weight = 0.0, 1.0
        if not soft:
            weight = class_weight(options, label[i])
            loss = -(weight * scratch[VALUE, i])
        if options.lane_weight.size:
            spread = 1.0 if soft else options.spread
            rest = TINY * math.log(scratch[TOTAL, i]) * (spread * scratch[MASS, i])
            rest -= scratch[SMOOTH, i]
            loss = rest if soft else options.keep * loss + rest
        if options.z_loss > 0.0:
            known = log_sum_exp(scratch, i, options)
            loss += known * (options.z_loss * known) / TINY
        if labels.sample_weight.size:
            loss *= labels.sample_weight[lo + i]
            weight *= labels.sample_weight[lo + i]
        scratch[LOSS, i], scratch[WEIGHT, i] = loss / TINY, weight
