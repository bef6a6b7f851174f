"""Kernel for outputs about the likeliest classes: a block a position, from the L2 cache.

The likeliest classes are found one after another, each as the first of those that come after the
one before: NaNs first, then the largest, then the first of equals. Values have the meaning of
``cpu.likeliest.step``'s.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numba import cuda

from kernels import formula
from kernels.cuda.kinds import TABLE, Kind, target
from kernels.cuda.loss.careful import raw_of
from kernels.cuda.loss.position import LOG2, MINUS, TOTAL, label_of, place
from kernels.cuda.outputs.per_class import log_prob_of
from kernels.cuda.sums.teams import teams
from kernels.cuda.sums.thread import Sums, beats, functions
from kernels.dtypes import FLOAT64

device, fma, element = target.device, target.fma, target.element
scaled_gap = device(formula.scaled_gap)


def _next(kind: Kind) -> Any:
    """Function: this thread's part of a search for the first class but ``but``, after ``last``."""
    start = functions(kind).start

    @target.team
    def next_of(logits: Any, first: int, last: float, last_at: int, but: int) -> Any:
        sums = start()
        best, best_at = sums.best, sums.best_at
        for c in range(cuda.threadIdx.x, logits.classes, cuda.blockDim.x):
            value = raw_of(logits, first, c)
            after = last_at < 0 or beats(last, last_at, value, c)
            if c != but and after and beats(value, c, best, best_at):
                best, best_at = value, c
        return Sums(
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, best, best_at, 0
        )  # fmt: skip

    return next_of


def _log_prob_at(kind: Kind) -> Any:
    """Function: the log-probability of a logit without the cap, by the sums in ``state``."""
    real, logit, plain = kind.real, functions(kind).logit, log_prob_of(kind)
    wide = functions(kind._replace(dtype=FLOAT64)).logit

    @device
    def log_prob_at(raw: Any, peak: float, state: Any, position: int, options: Any) -> float:
        total = state[TOTAL, position]
        if math.isnan(total):  # ``careful`` summed it: LOG2 is its natural logarithm
            gap = scaled_gap(wide(float(raw), options.cap), peak, options.unit)
            return gap - state[LOG2, position]
        value, minus = logit(real(raw), options.reals.cap), real(state[MINUS, position])
        t = fma(value, options.reals.scale, minus)
        return float(plain(value, t, real(total), real(state[LOG2, position]), options))

    return log_prob_at


@lru_cache
def likeliest_kernel(kind: Kind) -> Any:
    """Kernel that writes all outputs of ``plan.LIKELIEST`` that are wanted."""
    wide = kind._replace(dtype=FLOAT64, more=True)
    next_of, of_block, log_prob_at = _next(wide), teams(wide).of_block, _log_prob_at(kind)
    logit = functions(wide).logit

    @target.kernel(TABLE.threads, resident=256)
    def write_likeliest(logits: Any, labels: Any, options: Any, state: Any, likeliest: Any) -> None:
        position, each = cuda.blockIdx.x, likeliest.chosen_each
        y, first = label_of(labels, position, logits.classes), place(logits, position)
        found = of_block(next_of(logits, first, 0.0, -1, -1), True)
        largest, largest_at, cap = found.best, found.best_at, options.cap
        peak = logit(largest, cap)
        if cuda.threadIdx.x == 0:
            if likeliest.max_logit.size:
                likeliest.max_logit[position] = options.unit * peak
            if likeliest.confidence.size:
                log_prob = log_prob_at(largest, peak, state, position, options)
                likeliest.confidence[position] = math.exp(log_prob)
        if likeliest.margin.size:
            other = of_block(next_of(logits, first, 0.0, -1, y), True).best
            if cuda.threadIdx.x == 0:
                gap, own = math.nan, raw_of(logits, first, max(y, 0))
                if y >= 0:
                    gap = scaled_gap(logit(own, cap), logit(other, cap), options.unit)
                    if logits.classes == 1 and own == own:
                        gap = math.inf
                likeliest.margin[position] = gap
        at = position * likeliest.top_k
        for i in range(likeliest.top_k):
            if cuda.threadIdx.x == 0:
                if likeliest.top_classes.size:
                    likeliest.top_classes[at + i] = largest_at
                if likeliest.top_log_probs.size:
                    log_prob = log_prob_at(largest, peak, state, position, options)
                    likeliest.top_log_probs[at + i] = log_prob
            if i + 1 < likeliest.top_k:
                found = of_block(next_of(logits, first, largest, largest_at, -1), True)
                largest, largest_at = found.best, found.best_at
        if likeliest.chosen_log_probs.size:
            row = position * each if likeliest.chosen.size > each else 0
            for i in range(cuda.threadIdx.x, each, cuda.blockDim.x):
                raw = raw_of(logits, first, likeliest.chosen[row + i])
                log_prob = log_prob_at(raw, peak, state, position, options)
                likeliest.chosen_log_probs[position * each + i] = log_prob

    return write_likeliest
