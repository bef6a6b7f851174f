"""The slow, exact way, in float64: positions that the fast sums cannot represent.

Those hold NaN, +inf, nothing but -inf, or a largest logit beyond ``sums.LARGEST_SHIFT``. A block
takes one of them at a time. The meaning of every answer is that of ``cpu.careful``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

from numba import cuda

from kernels.cuda.kinds import TABLE, Kind, target
from kernels.cuda.losses import Known, at_most_0, give, label_of, sample_of, weigh_gradient
from kernels.cuda.rows import place
from kernels.cuda.sums import Sums, beats, functions
from kernels.cuda.teams import teams
from kernels.dtypes import FLOAT64

device, element = target.device, target.element


class _Exact(NamedTuple):
    """``logit(x, at, cap)``, one logit in float64, and ``slope(value, cap)``, its derivative."""

    logit: Any
    slope: Any


def _exact(kind: Kind) -> _Exact:
    capped = kind.capped

    @device
    def logit(x: Any, at: int, cap: float) -> float:
        value = float(element(x, at))
        return cap * math.tanh(value / cap) if capped else value

    @device
    def slope(value: float, cap: float) -> float:
        return 1.0 - (value / cap) * (value / cap) if capped else 1.0

    return _Exact(logit, slope)


def _share(kind: Kind) -> Any:
    """A function: the probability of a class in the smoothed label, without class weights."""
    softly = kind.soft

    @device
    def share(soft: Any, soft_first: int, c: int, rule: Any) -> float:
        if not softly:
            return 1.0
        p = float(element(soft.data, soft_first + c * soft.class_stride))
        return rule.keep * p + rule.spread

    return share


def _largest(kind: Kind, logit: Any) -> Any:
    """A function: this thread's part of a search for the largest logit, or a NaN."""
    start = functions(kind).start

    @target.team
    def largest(logits: Any, first: int, cap: float) -> Any:
        sums = start()
        best, best_at = sums.best, sums.best_at
        for c in range(cuda.threadIdx.x, logits.classes, cuda.blockDim.x):
            value = logit(logits.data, first + c * logits.class_stride, cap)
            if beats(value, c, best, best_at):
                best, best_at = value, c
        return Sums(
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, best, best_at, 0
        )  # fmt: skip

    return largest


def _summed(kind: Kind, logit: Any, share: Any) -> Any:
    """A function: this thread's part of the sums, relative to ``peak``, in nats."""
    smooth_wanted = kind.smooth

    @target.team
    def summed(
        logits: Any, first: int, soft: Any, soft_first: int, y: int, peak: float, rule: Any
    ) -> Any:
        own = logit(logits.data, first + max(y, 0) * logits.class_stride, rule.cap)
        total, mass, smooth, surprise, before = 0.0, 0.0, 0.0, 0.0, 0
        for c in range(cuda.threadIdx.x, logits.classes, cuda.blockDim.x):
            value = logit(logits.data, first + c * logits.class_stride, rule.cap)
            gap = rule.unit * (value - peak)
            power = math.exp(gap)
            total += power
            if power > 0.0:
                surprise += power * gap
            if value > own or (value == own and c < y):
                before += 1
            if smooth_wanted:
                p = share(soft, soft_first, c, rule)
                q = rule.lane_weight[c] * p
                mass += q
                if p != 0.0:
                    smooth += q * gap
        return Sums(
            0.0, total, 0.0, mass, 0.0, smooth, 0.0, surprise, 0.0, 0.0, 0.0, 0.0, 0, before
        )  # fmt: skip

    return summed


def _written(kind: Kind, exact: _Exact, share: Any) -> Any:
    """A function that writes this thread's part of the answers that have a value for each class."""
    logit, slope, smooth_wanted, softly = exact.logit, exact.slope, kind.smooth, kind.soft

    @target.team
    def written(
        position: int, logits: Any, first: int, soft: Any, y: int, peak: float, logarithm: float,
        factors: Any, rule: Any, log_probs: Any, gradient: Any,
    ) -> None:  # fmt: skip
        push, pull, own = factors
        soft_first = place(soft, position) if softly else 0
        for c in range(cuda.threadIdx.x, logits.classes, cuda.blockDim.x):
            value = logit(logits.data, first + c * logits.class_stride, rule.cap)
            log_prob = rule.unit * (value - peak) - logarithm
            p = math.exp(log_prob)
            if log_probs.data.size:
                at = place(log_probs, position) + c * log_probs.class_stride
                log_probs.data[at] = p if rule.probs else log_prob
            if gradient.data.size:
                slant = 0.0
                if softly or y >= 0:
                    slant = push * p
                    if smooth_wanted:
                        q = share(soft, soft_first, c, rule) * rule.lane_weight[c]
                        slant -= pull * (q if softly else rule.spread * q)
                    if c == y:
                        slant -= own
                    slant *= slope(value, rule.cap)
                at = place(gradient, position) + c * gradient.class_stride
                gradient.data[at] = slant

    return written


@lru_cache
def careful_kernel(kind: Kind) -> Any:
    """The kernel that answers all that ``answers.odd`` lists; few blocks share a long list."""
    exact, share = _exact(kind), _share(kind)
    wide = kind._replace(dtype=FLOAT64, more=True)
    largest, summed = _largest(wide, exact.logit), _summed(kind, exact.logit, share)
    written, of_block, softly = _written(kind, exact, share), teams(wide).of_block, kind.soft
    exact_logit = exact.logit

    # With 128 registers it spills on capability 8.0, as CUDA 13.5 compiles it.
    @target.kernel(TABLE.threads, resident=256)
    def take_care(
        logits: Any, soft: Any, labels: Any, rule: Any, answers: Any, log_probs: Any, gradient: Any
    ) -> None:
        for i in range(cuda.blockIdx.x, answers.status[1], cuda.gridDim.x):
            position = answers.odd[i]
            y, first = label_of(labels, position, logits.classes), place(logits, position)
            soft_first = place(soft, position) if softly else 0
            found = of_block(largest(logits, first, rule.cap), True)
            peak, best_at = found.best, found.best_at
            # Any NaN or infinity makes a NaN of what follows.
            sums = of_block(summed(logits, first, soft, soft_first, y, peak, rule), True)
            total = sums.total if abs(peak) < math.inf else math.nan
            logarithm, to_base2 = math.log(total), 1.0 / rule.to_nats
            log_sum_exp = peak if math.isinf(peak) else rule.unit * peak + logarithm
            log_prob = 0.0
            if y >= 0:
                own = exact_logit(logits.data, first + y * logits.class_stride, rule.cap)
                log_prob = at_most_0((rule.unit * (own - peak) - logarithm) * to_base2)
            known = Known(
                log_prob, logarithm * to_base2, log_sum_exp, sums.mass, sums.smooth * to_base2
            )
            if cuda.threadIdx.x == 0:
                give(position, known, y, softly, logits.classes, labels, rule, answers)
                if answers.entropy.size:
                    answers.entropy[position] = logarithm - sums.surprise / total
                if answers.rank.size:
                    answers.rank[position] = sums.before if y >= 0 and peak == peak else -1
                if answers.prediction.size:
                    answers.prediction[position] = best_at
            if log_probs.data.size or gradient.data.size:
                factors = weigh_gradient(known, y, softly, sample_of(labels, position), rule)
                written(
                    position, logits, first, soft, y, peak, logarithm, factors, rule, log_probs,
                    gradient,
                )  # fmt: skip

    return take_care
