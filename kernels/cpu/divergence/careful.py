"""Divergence of two rows in scalar float64, for those that ``divergence.rows`` cannot represent.

They hold NaN, +inf or nothing but -inf; logits beyond some millions; or an infinite term, which
tells whether a logit was -inf or only too low for the registers' type.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined
from kernels.divergence_formula import REVERSE, not_negative, slope_of, term_of
from kernels.plan import place
from kernels.simd import element


@inlined
def log_sum(x: Any, first: int, start: int, stop: int, unit: float) -> tuple[float, float]:
    """``(largest, rest)``: log(sum(exp(unit * x))) = unit * largest + rest over some classes.

    Both are NaN with a NaN or +inf among them, and ``largest`` is -inf where all are.
    """
    largest = -math.inf
    for c in range(start, stop):
        value = element(x, first + c)
        if not value <= largest:
            largest = value
            if math.isnan(value):
                break
    if not largest < math.inf:
        return math.nan, math.nan
    if largest == -math.inf:
        return largest, 0.0
    total = 0.0
    for c in range(start, stop):
        total += math.exp(unit * (element(x, first + c) - largest))
    return largest, math.log(total)


@called
def careful_pair(
    p: Any, q: Any, position: int, y: int, options: Any, gradient: Any, factor: float
) -> tuple[float, float, float]:
    """``(divergence, teacher's log-probability of y, student's)``; writes the gradient.

    ``p`` and ``q`` are the views of ``dense.pair_kernel``; ``factor`` multiplies the gradient,
    and y is negative where there is no label.
    """
    swapped = options.mode == REVERSE
    first, q_first = place(p, position), place(q, position)
    largest, rest = log_sum(p.data, first, 0, p.classes, options.p.unit)
    q_largest, q_rest = log_sum(q.data, q_first, 0, q.classes, options.q.unit)
    if not (largest > -math.inf and q_largest > -math.inf):
        largest = math.nan
    divergence, mean, t_label, s_label = 0.0, 0.0, 0.0, 0.0
    for c in range(p.classes):
        t = options.p.unit * (element(p.data, first + c) - largest) - rest
        s = options.q.unit * (element(q.data, q_first + c) - q_largest) - q_rest
        if swapped:
            t, s = s, t
        if c == y:
            t_label, s_label = t, s
        term, share = term_of(t, s, options.mode, options.beta)
        divergence, mean = divergence + term, mean + share
    if gradient.data.size:
        out = place(gradient, position)
        for c in range(p.classes):
            t = options.p.unit * (element(p.data, first + c) - largest) - rest
            s = options.q.unit * (element(q.data, q_first + c) - q_largest) - q_rest
            if swapped:
                t, s = s, t
            slope = slope_of(t, s, mean, 0.0, options.mode, options.beta)
            gradient.data[out + c] = factor * slope
    if math.isnan(largest):
        return math.nan, t_label, s_label
    return not_negative(divergence), t_label, s_label
