"""Exact, slow sums and outputs in float64, for positions that SIMD sums cannot represent.

Those hold NaN, +inf, nothing but -inf, or a maximum beyond ``formula.LARGEST_SHIFT``; or terms of
their loss are beyond ``formula.FAR`` or the range of the registers.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined
from kernels.cpu.logit import exact, exact_slope
from kernels.cpu.tile import (
    CAREFUL,
    EXPECTED,
    LEAN,
    LEAST,
    LOSS,
    MASS,
    MINUS,
    OWN,
    PEAK,
    PULL,
    PUSH,
    SHARES,
    SMOOTH,
    TOTAL,
    VALUE,
    WEIGHT,
    log_sum_exp,
)
from kernels.formula import (
    TINY,
    Known,
    careful_loss,
    careful_terms,
    gradient_of,
    sample_of,
    scaled_gap,
    target_of,
)
from kernels.plan import place
from kernels.simd import element


@inlined
def _careful_sum(view: Any, position: int, options: Any) -> tuple[float, float]:
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
) -> tuple[float, float, float, float, float]:
    """``(mass, smooth)`` as in ``formula.Known``, with gaps to ``largest``; then the sum of the
    class probabilities, the least of them and 0, and the sum of their products with the powers.
    """
    mass, smooth, shares, least, given, softly = 0.0, 0.0, 0.0, 0.0, 0.0, soft.data.size > 0
    expected = 0.0
    for c in range(logits.classes):
        if softly:
            given = element(soft.data, soft_first + c * soft.class_stride)
            shares += given
            least = given if given < least else least
        value = exact(logits.data, first + c * logits.class_stride, options.cap)
        gap = scaled_gap(value, largest, TINY * options.unit)
        each, term = careful_terms(given, c, gap, softly, options)
        mass += each
        smooth += term
        expected += given * math.exp(gap / TINY)
    return mass, smooth, shares, least, expected


@called
def careful_position(
    logits: Any, soft: Any, position: int, label: int, options: Any, scratch: Any, at: int
) -> None:
    """Fill in all that ``scratch`` holds of one position.

    VALUE is TINY times the label's log-probability in nats (that of class 0 where there is no
    label), and SMOOTH is ``careful``'s as in ``formula.Known``.
    """
    first, stride, unit = place(logits, position), logits.class_stride, options.unit
    total, largest = _careful_sum(logits, position, options)
    scratch[TOTAL, at], scratch[CAREFUL, at], scratch[PEAK, at] = total, 1.0, largest
    own = exact(logits.data, first + max(label, 0) * stride, options.cap)
    gap = scaled_gap(own, largest, TINY * unit)
    scratch[MINUS, at], scratch[VALUE, at] = 0.0, gap - TINY * math.log(total)
    if options.lane_weight.size:
        soft_first = place(soft, position)
        mass, smooth, shares, least, expected = _careful_smooth(
            logits, first, largest, soft, soft_first, options
        )
        scratch[MASS, at], scratch[SMOOTH, at] = mass, smooth
        scratch[SHARES, at], scratch[LEAST, at] = shares, least
        scratch[EXPECTED, at] = expected / total


@called
def weigh_careful(
    scratch: Any, label: Any, soft: bool, labels: Any, lo: int, count: int, options: Any
) -> None:
    """Write LOSS and WEIGHT, as ``tile.weigh_tile`` does, of the positions computed here."""
    for i in range(count):
        if scratch[CAREFUL, i] == 0.0:
            continue
        known = Known(
            scratch[VALUE, i],
            math.log(scratch[TOTAL, i]),
            log_sum_exp(scratch, i, options),
            scratch[MASS, i],
            scratch[SMOOTH, i],
            scratch[EXPECTED, i],
        )
        sample = sample_of(labels, lo + i)
        loss, weight = careful_loss(known, label[i], soft, sample, options)
        scratch[LOSS, i], scratch[WEIGHT, i] = loss, weight


@called
def careful_known(known: Any, scratch: Any, soft: bool, at: int, options: Any) -> Any:
    """``known`` of a position that ``careful_position`` summed, as ``formula.gradient_factors``
    takes it: in the units of all others.
    """
    smooth = scratch[SMOOTH, at] / TINY / options.to_nats
    if not soft and options.spread > 0.0:
        smooth /= options.spread
    return Known(
        scratch[VALUE, at] / TINY / options.to_nats,
        math.log(scratch[TOTAL, at]) / options.to_nats,
        known.log_sum_exp,
        known.mass,
        smooth,
        known.expected,
    )


@called
def careful_outputs(operands: Any, position: int, y: int, scratch: Any, at: int) -> None:
    """Write all outputs of one position, but for the log-sum-exp; its sums are in ``scratch``."""
    logits, soft, options = operands.logits, operands.soft, operands.options
    log_probs, gradient, results = operands.log_probs, operands.gradient, operands.results
    x, first, stride = logits.data, place(logits, position), logits.class_stride
    out_first, soft_first = place(log_probs, position), place(soft, position)
    gradient_first = place(gradient, position)
    factors = scratch[PUSH, at], scratch[PULL, at], scratch[OWN, at], scratch[LEAN, at]
    peak, cap, given, softly = scratch[PEAK, at], options.cap, 0.0, soft.data.size > 0
    logarithm, surprise, before, nan = math.log(scratch[TOTAL, at]), 0.0, 0, False
    best, largest, own = 0, element(x, first), element(x, first + max(y, 0) * stride)
    for c in range(logits.classes):
        raw = element(x, first + c * stride)
        if not nan and (math.isnan(raw) or raw > largest):
            best, largest, nan = c, raw, math.isnan(raw)
        before += raw > own or (raw == own and c < y)
        value = exact(x, first + c * stride, cap)
        log_prob = scaled_gap(value, peak, options.unit) - logarithm
        p = math.exp(log_prob)
        if p != 0.0:
            surprise -= p * log_prob
        if log_probs.data.size:
            log_probs.data[out_first + c * log_probs.class_stride] = (
                p if options.probs else log_prob
            )
        if gradient.data.size:
            q = 0.0
            if softly:
                given = element(soft.data, soft_first + c * soft.class_stride)
            if options.lane_weight.size:
                q = target_of(given, c, softly, options)
            slant = gradient_of(p, q, given, c == y, factors) * exact_slope(raw, cap)
            ignored = y < 0 and not softly
            gradient.data[gradient_first + c * gradient.class_stride] = 0.0 if ignored else slant
    if results.entropy.size:
        results.entropy[position] = surprise
    if results.rank.size:
        results.rank[position] = -1 if nan or y < 0 else before
    if results.prediction.size:
        results.prediction[position] = best
