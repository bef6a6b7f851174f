"""Second read, from cache, of two rows: Jensen-Shannon divergence and gradients, in registers."""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import by_type, called, inlined
from kernels.cpu.outputs.rows import before_past, least_exponent, store_rest
from kernels.cpu.sums.rows import BLOCK
from kernels.divergence_formula import FORWARD, LN2, REVERSE
from kernels.plan import place
from kernels.simd import (
    beyond_cache,
    constant,
    exp2,
    fma,
    load_first,
    log2,
    log2_float32,
    maximum,
    narrow,
    sum_across,
    where_greater,
    widen_high,
    widen_low,
    width,
)
from kernels.simd.lanes import FLOAT64X8


@by_type
def _log2(lanes: Any) -> Any:
    """log2 in each lane, within 2 ulp of max(|log2|, 1); float32 by way of float64."""
    if lanes == FLOAT64X8:

        def log2_of_float64(lanes: Any) -> Any:
            return log2(lanes)

        return log2_of_float64

    def log2_of_float32(lanes: Any) -> Any:
        return narrow(log2_float32(widen_low(lanes)), log2_float32(widen_high(lanes)))

    return log2_of_float32


@inlined
def _mixture_logs(like: Any, gap: Any, beta: float) -> Any:
    """``(log2(p / m), log2(q / m))`` of m = beta * p + (1 - beta) * q, where gap = log2(p / q).

    log2 of a number in (0, 1] that is exactly 1 for a gap of 0.
    """
    zero, one = constant(like, 0.0), constant(like, 1.0)
    off = one - exp2(zero - maximum(gap, zero - gap))
    other = where_greater(zero, gap, constant(like, beta), constant(like, 1.0 - beta))
    log = _log2(fma(zero - other, off, one))
    of_larger, of_smaller = zero - log, zero - maximum(gap, zero - gap) - log
    by_p = where_greater(zero, gap, of_smaller, of_larger)
    return by_p, where_greater(zero, gap, of_larger, of_smaller)


@called
def sum_mixture(p: Any, q: Any, position: int, state: Any, options: Any) -> tuple[float, float]:
    """``(sum(p * log2(p / m)), sum(q * log2(q / m)))``; see ``dense.State``."""
    x, y, first, y_first = p.data, q.data, place(p, position), place(q, position)
    zero, lowest, least = constant(x, 0.0), constant(x, -math.inf), least_exponent(x)
    scales, minus = constant(x, options.p.scale), constant(x, -state.shift)
    y_scales, y_minus = constant(x, options.q.scale), constant(x, -state.q_shift)
    apart = constant(x, state.log2 - state.q_log2)
    by_p, by_q = 0.0, 0.0
    for start in range(0, p.classes, BLOCK):
        stop, p_part, q_part = min(start + BLOCK, p.classes), zero, zero
        for i in range(start, stop, width(x)):
            a = fma(load_first(x, first + i, stop - i, lowest), scales, minus)
            b = fma(load_first(y, y_first + i, stop - i, lowest), y_scales, y_minus)
            p_log, q_log = _mixture_logs(x, (a - b) - apart, options.beta)
            p_part = where_greater(a, least, fma(exp2(a), p_log, p_part), p_part)
            q_part = where_greater(b, least, fma(exp2(b), q_log, q_part), q_part)
        by_p, by_q = by_p + sum_across(p_part), by_q + sum_across(q_part)
    return by_p / state.total, by_q / state.q_total


@called
def write_slopes(
    p: Any, q: Any, out: Any, position: int, state: Any, mean: float, options: Any, factor: float
) -> None:
    """Write ``factor`` times the gradient by the student's logits.

    ``mean`` is that of ``divergence_formula.term_of``, in units of ln(2); of FORWARD it is 1.
    """
    x, y, z, classes = p.data, q.data, out.data, p.classes
    first, y_first, out_first = place(p, position), place(q, position), place(out, position)
    zero, lowest, least = constant(x, 0.0), constant(x, -math.inf), least_exponent(x)
    scales, minus = constant(x, options.p.scale), constant(x, -state.shift)
    y_scales, y_minus = constant(x, options.q.scale), constant(x, -state.q_shift)
    apart, means = constant(x, state.log2 - state.q_log2), constant(x, mean)
    p_factor, q_factor = constant(x, factor / state.total), constant(x, factor / state.q_total)
    by_gap = constant(x, factor * LN2 / state.total)
    by_log = constant(x, factor * (1.0 - options.beta) * LN2 / state.q_total)
    past, head = beyond_cache(z, classes), before_past(z, out_first, classes)
    for part in range(2):
        start, stop = (0, head) if part == 0 else (head, classes)
        for i in range(start, stop, width(x)):
            rest = stop - i
            a = fma(load_first(x, first + i, rest, lowest), scales, minus)
            b = fma(load_first(y, y_first + i, rest, lowest), y_scales, y_minus)
            p_power = where_greater(a, least, exp2(a), zero)
            q_power = where_greater(b, least, exp2(b), zero)
            if options.mode == FORWARD:
                slope = fma(q_power, q_factor, zero - p_power * p_factor)
            elif options.mode == REVERSE:
                slope = p_power * by_gap * (((a - b) - apart) - means)
                slope = where_greater(p_power, zero, slope, zero)
            else:
                q_log = _mixture_logs(x, (a - b) - apart, options.beta)[1]
                slope = where_greater(q_power, zero, q_power * by_log * (q_log - means), zero)
            store_rest(z, out_first + i, rest, slope, past)
