"""Divergence of a position from dense targets, with its outputs."""

from __future__ import annotations

import math
from typing import Any

from numba import cuda

from kernels.cuda.divergence.formula import not_negative, slope_of, term_of, weighed
from kernels.cuda.divergence.rows import in_block, likeliest, log_prob, log_sum
from kernels.cuda.kinds import target


@target.team
def dense_position(a: Any, position: int, values: Any) -> None:
    """Compute a position with dense targets."""
    first, most, thread = position * a.most, a.most, cuda.threadIdx.x
    nothing, factor = a.sorted[position], a.upstream * a.weight[position]
    peak, rest = log_sum(values, a.logits, first, a.unit, nothing, 0, most)
    t_peak, t_rest = log_sum(values, a.targets, first, a.target_unit, nothing, 0, most)
    if a.tolerance < math.inf and a.weight[position] != 0.0:
        plain, plain_rest = log_sum(values, a.targets, first, 1.0, nothing, 0, most)
        total = math.exp(min(plain + plain_rest, 700.0))
        if not abs(total - 1.0) <= a.tolerance and thread == 0:
            cuda.atomic.min(a.status, 0, position)
    if not (peak > -math.inf and t_peak > -math.inf):
        peak = math.nan
    divergence, mean = 0.0, 0.0
    for c in range(thread, most, cuda.blockDim.x):
        s = log_prob(a.logits, first + c, a.unit, peak, rest)
        t = log_prob(a.targets, first + c, a.target_unit, t_peak, t_rest)
        term, part = term_of(t, s, a.mode, a.beta)
        divergence, mean = divergence + term, mean + part
    divergence, mean = in_block(values, divergence, False), in_block(values, mean, False)
    divergence = math.nan if math.isnan(peak) else not_negative(divergence)
    if thread == 0:
        a.losses[position] = weighed(divergence, a.weight[position], a.factor)
        if a.label_log_probs.size:
            at = first + a.labels[position]
            a.label_log_probs[position] = log_prob(a.logits, at, a.unit, peak, rest)
            a.target_label_log_probs[position] = log_prob(
                a.targets, at, a.target_unit, t_peak, t_rest
            )
    if a.same_top.size:
        own = likeliest(values, a.logits, first, most)
        other = likeliest(values, a.targets, first, most)
        if thread == 0:
            a.same_top[position] = -1 if math.isnan(divergence) else int(own == other)
    if a.gradient.size:
        for c in range(thread, most, cuda.blockDim.x):
            s = log_prob(a.logits, first + c, a.unit, peak, rest)
            t = log_prob(a.targets, first + c, a.target_unit, t_peak, t_rest)
            a.gradient[first + c] = factor * slope_of(t, s, mean, 0.0, a.mode, a.beta)
