"""Exact, slow kernel in float64, for positions that the fast sums cannot represent.

Those hold NaN, +inf, nothing but -inf, or a largest logit beyond ``formula.LARGEST_SHIFT``; or
terms of their loss are beyond ``formula.FAR`` or float32. A block computes one of them at a time.
Results have the meaning of ``cpu.careful``'s.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numba import cuda

from kernels import formula
from kernels.cuda.kinds import TABLE, Kind, target
from kernels.cuda.loss.position import gradient_factors, label_of, place, sample_of, write_results
from kernels.cuda.sums.teams import teams
from kernels.cuda.sums.thread import Sums, beats, functions
from kernels.dtypes import FLOAT64
from kernels.formula import TINY, Known

device, element = target.device, target.element
careful_loss, scaled_gap = device(formula.careful_loss), device(formula.scaled_gap)
careful_terms, gradient_of = device(formula.careful_terms), device(formula.gradient_of)
careful_log_sum_exp, target_of = device(formula.careful_log_sum_exp), device(formula.target_of)
slope_of_cap = device(formula.slope_of_cap)


@device
def raw_of(view: Any, first: int, c: int) -> float:
    """Element of class ``c`` in float64, without the cap."""
    return float(element(view.data, first + c * view.class_stride))


def _largest(kind: Kind) -> Any:
    """Function: this thread's part of a search for the largest logit without the cap, or a NaN."""
    start = functions(kind).start

    @target.team
    def largest(logits: Any, first: int) -> Any:
        sums = start()
        best, best_at = sums.best, sums.best_at
        for c in range(cuda.threadIdx.x, logits.classes, cuda.blockDim.x):
            value = raw_of(logits, first, c)
            if beats(value, c, best, best_at):
                best, best_at = value, c
        return Sums(
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, best, best_at, 0
        )  # fmt: skip

    return largest


def _summed(kind: Kind) -> Any:
    """Function: this thread's part of the sums, relative to ``peak``, in nats; ``mass`` and
    ``smooth`` are those of ``formula.Known``, ``shares`` is the sum of powers times probabilities.
    """
    smooth_wanted, softly, logit = kind.smooth, kind.soft, functions(kind).logit

    @target.team
    def summed(
        logits: Any, first: int, soft: Any, soft_first: int, y: int, peak: float, options: Any
    ) -> Any:
        own = raw_of(logits, first, max(y, 0))
        total, mass, smooth, surprise, before = 0.0, 0.0, 0.0, 0.0, 0
        expected = 0.0
        for c in range(cuda.threadIdx.x, logits.classes, cuda.blockDim.x):
            raw = raw_of(logits, first, c)
            value = logit(raw, options.cap)
            gap = scaled_gap(value, peak, options.unit)
            power = math.exp(gap)
            total += power
            if power > 0.0:
                surprise += power * gap
            if raw > own or (raw == own and c < y):
                before += 1
            if smooth_wanted:
                given = raw_of(soft, soft_first, c) if softly else 0.0
                tiny_gap = scaled_gap(value, peak, TINY * options.unit)
                each, term = careful_terms(given, c, tiny_gap, softly, options)
                mass += each
                smooth += term
                expected += given * power
        return Sums(
            0.0, total, 0.0, mass, 0.0, smooth, 0.0, surprise, 0.0, expected, 0.0, 0.0, 0, before
        )  # fmt: skip

    return summed


def _written(kind: Kind) -> Any:
    """Function that writes this thread's part of the outputs with a value a class."""
    capped, smooth_wanted, softly = kind.capped, kind.smooth, kind.soft
    logit = functions(kind).logit

    @target.team
    def written(
        position: int, logits: Any, first: int, soft: Any, y: int, peak: float, logarithm: float,
        factors: Any, options: Any, log_probs: Any, gradient: Any,
    ) -> None:  # fmt: skip
        soft_first = place(soft, position) if softly else 0
        for c in range(cuda.threadIdx.x, logits.classes, cuda.blockDim.x):
            raw = raw_of(logits, first, c)
            log_prob = scaled_gap(logit(raw, options.cap), peak, options.unit) - logarithm
            p = math.exp(log_prob)
            if log_probs.data.size:
                at = place(log_probs, position) + c * log_probs.class_stride
                log_probs.data[at] = p if options.probs else log_prob
            if gradient.data.size:
                slant = 0.0
                if softly or y >= 0:
                    q, given = 0.0, 0.0
                    if smooth_wanted:
                        given = raw_of(soft, soft_first, c) if softly else 0.0
                        q = target_of(given, c, softly, options)
                    slant = gradient_of(p, q, given, c == y, factors)
                    if capped:
                        slant *= slope_of_cap(raw, options.cap)
                at = place(gradient, position) + c * gradient.class_stride
                gradient.data[at] = slant

    return written


@lru_cache
def careful_kernel(kind: Kind) -> Any:
    """Kernel that computes all positions that ``results.odd`` lists; few blocks share the list."""
    wide = kind._replace(dtype=FLOAT64, more=True)
    largest, summed, written = _largest(wide), _summed(wide), _written(wide)
    of_block, softly, logit = teams(wide).of_block, kind.soft, functions(wide).logit

    # With 128 registers it spills on capability 8.0, as CUDA 13.5 compiles it.
    @target.kernel(TABLE.threads, resident=256)
    def take_care(
        logits: Any, soft: Any, labels: Any, options: Any, results: Any, log_probs: Any,
        gradient: Any,
    ) -> None:  # fmt: skip
        for i in range(cuda.blockIdx.x, results.status[1], cuda.gridDim.x):
            position = results.odd[i]
            y, first = label_of(labels, position, logits.classes), place(logits, position)
            soft_first = place(soft, position) if softly else 0
            found = of_block(largest(logits, first), True)
            peak, best_at = logit(found.best, options.cap), found.best_at
            # Any NaN or infinity makes a NaN of what follows.
            sums = of_block(summed(logits, first, soft, soft_first, y, peak, options), True)
            total = sums.total if abs(peak) < math.inf else math.nan
            logarithm = math.log(total)
            log_sum_exp = careful_log_sum_exp(peak, logarithm, options.unit)
            own = logit(raw_of(logits, first, max(y, 0)), options.cap)
            log_prob = scaled_gap(own, peak, TINY * options.unit) - TINY * logarithm
            known = Known(
                log_prob, logarithm, log_sum_exp, sums.mass, sums.smooth, sums.shares / total
            )
            # As all others have them, for the gradient: see ``cpu.careful.careful_known``.
            spread = 1.0 if softly or options.spread == 0.0 else options.spread
            plainly = Known(
                log_prob / TINY / options.to_nats,
                logarithm / options.to_nats,
                log_sum_exp,
                sums.mass,
                sums.smooth / TINY / options.to_nats / spread,
                sums.shares / total,
            )
            sample = sample_of(labels, position)
            factors = gradient_factors(plainly, y, softly, sample, options)
            if cuda.threadIdx.x == 0:
                loss, weight = careful_loss(known, y, softly, sample, options)
                write_results(position, known, loss, weight, factors, options, results)
                if results.entropy.size:
                    results.entropy[position] = logarithm - sums.surprise / total
                if results.rank.size:
                    results.rank[position] = sums.before if y >= 0 and peak == peak else -1
                if results.prediction.size:
                    results.prediction[position] = best_at
            if log_probs.data.size or gradient.data.size:
                written(
                    position, logits, first, soft, y, peak, logarithm, factors, options, log_probs,
                    gradient,
                )  # fmt: skip

    return take_care
