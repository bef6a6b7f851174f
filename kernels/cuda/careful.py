"""The slow, exact way, in float64: positions that the fast sums cannot represent.

Those hold NaN, +inf, nothing but -inf, or a largest logit beyond ``sums.LARGEST_SHIFT``; or their
loss is made of what is beyond ``cpu.tile.FAR``, or of float32. A block takes one of them at a time.
The meaning of every answer is that of ``cpu.careful``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

from numba import cuda

from kernels.cpu.tile import TINY
from kernels.cuda.kinds import TABLE, Kind, target
from kernels.cuda.losses import Known, give, label_of, sample_of, weigh_gradient
from kernels.cuda.rows import place
from kernels.cuda.sums import Sums, beats, functions
from kernels.cuda.teams import teams
from kernels.dtypes import FLOAT64

device, element = target.device, target.element


class _Exact(NamedTuple):
    """``logit(raw, cap)``, a logit in float64 of the element ``raw``, and ``slope(raw, cap)``, its
    derivative.
    """

    logit: Any
    slope: Any


def _exact(kind: Kind) -> _Exact:
    capped = kind.capped

    @device
    def logit(raw: float, cap: float) -> float:
        return cap * math.tanh(raw / cap) if capped else raw

    @device
    def slope(raw: float, cap: float) -> float:
        if not capped:
            return 1.0
        power = math.exp(-2.0 * abs(raw / cap))
        return 4.0 * power / ((1.0 + power) * (1.0 + power))

    return _Exact(logit, slope)


@device
def raw_of(logits: Any, first: int, c: int) -> float:
    """The logit of class ``c`` as given, in float64."""
    return float(element(logits.data, first + c * logits.class_stride))


@device
def class_weight(rule: Any, c: int) -> float:
    """``cpu.careful.class_weight``."""
    return rule.weight[c] if rule.weight.size else 1.0


@device
def scaled_gap(value: float, peak: float, unit: float) -> float:
    """``cpu.careful.scaled_gap``."""
    return (2.0 * unit) * (0.5 * value - 0.5 * peak)


@device
def careful_loss(
    log_prob: float, logarithm: float, known: Any, y: int, soft: bool, sample: float, rule: Any
) -> Any:
    """``(loss, weight)`` as ``losses.loss_of`` gives, by the rule of ``cpu.careful.weigh_careful``:
    ``log_prob`` and ``known.smooth`` are TINY times what they are in nats.
    """
    if y < 0 and not soft:
        return 0.0, 0.0
    loss, weight = 0.0, 1.0
    if not soft:
        weight = class_weight(rule, y)
        loss = -(weight * log_prob)
    if rule.lane_weight.size:
        mass = known.mass if soft else rule.spread * known.mass
        rest = TINY * logarithm * mass - known.smooth
        loss = rest if soft else rule.keep * loss + rest
    if rule.z_loss > 0.0:
        loss += known.log_sum_exp * (rule.z_loss * known.log_sum_exp) / TINY
    return loss * sample / TINY, weight * sample


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


def _largest(kind: Kind) -> Any:
    """A function: this thread's part of a search for the largest logit as given, or a NaN."""
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


def _summed(kind: Kind, logit: Any, share: Any) -> Any:
    """A function: this thread's part of the sums, relative to ``peak``, in nats; ``smooth`` is TINY
    times what is subtracted from the loss.
    """
    smooth_wanted, softly = kind.smooth, kind.soft

    @target.team
    def summed(
        logits: Any, first: int, soft: Any, soft_first: int, y: int, peak: float, rule: Any
    ) -> Any:
        own = raw_of(logits, first, max(y, 0))
        total, mass, smooth, surprise, before = 0.0, 0.0, 0.0, 0.0, 0
        for c in range(cuda.threadIdx.x, logits.classes, cuda.blockDim.x):
            raw = raw_of(logits, first, c)
            value = logit(raw, rule.cap)
            gap = scaled_gap(value, peak, rule.unit)
            power = math.exp(gap)
            total += power
            if power > 0.0:
                surprise += power * gap
            if raw > own or (raw == own and c < y):
                before += 1
            if smooth_wanted:
                p = share(soft, soft_first, c, rule)
                q = class_weight(rule, c) * p
                mass += q
                if p != 0.0:
                    each = q if softly else q * rule.spread
                    smooth += each * scaled_gap(value, peak, TINY * rule.unit)
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
            raw = raw_of(logits, first, c)
            log_prob = scaled_gap(logit(raw, rule.cap), peak, rule.unit) - logarithm
            p = math.exp(log_prob)
            if log_probs.data.size:
                at = place(log_probs, position) + c * log_probs.class_stride
                log_probs.data[at] = p if rule.probs else log_prob
            if gradient.data.size:
                slant = 0.0
                if softly or y >= 0:
                    slant = push * p
                    if smooth_wanted:
                        q = share(soft, soft_first, c, rule) * class_weight(rule, c)
                        slant -= pull * (q if softly else rule.spread * q)
                    if c == y:
                        slant -= own
                    slant *= slope(raw, rule.cap)
                at = place(gradient, position) + c * gradient.class_stride
                gradient.data[at] = slant

    return written


@lru_cache
def careful_kernel(kind: Kind) -> Any:
    """The kernel that answers all that ``answers.odd`` lists; few blocks share a long list."""
    exact, share = _exact(kind), _share(kind)
    wide = kind._replace(dtype=FLOAT64, more=True)
    largest, summed = _largest(wide), _summed(kind, exact.logit, share)
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
            found = of_block(largest(logits, first), True)
            peak, best_at = exact_logit(found.best, rule.cap), found.best_at
            # Any NaN or infinity makes a NaN of what follows.
            sums = of_block(summed(logits, first, soft, soft_first, y, peak, rule), True)
            total = sums.total if abs(peak) < math.inf else math.nan
            logarithm = math.log(total)
            log_sum_exp = peak
            if not math.isinf(peak):
                log_sum_exp = TINY * rule.unit * peak + TINY * logarithm
            own = exact_logit(raw_of(logits, first, max(y, 0)), rule.cap)
            log_prob = scaled_gap(own, peak, TINY * rule.unit) - TINY * logarithm
            known = Known(0.0, 0.0, log_sum_exp, sums.mass, sums.smooth)
            sample = sample_of(labels, position)
            if cuda.threadIdx.x == 0:
                loss, weight = careful_loss(log_prob, logarithm, known, y, softly, sample, rule)
                give(position, known, loss, weight, y, softly, sample, rule, answers)
                if answers.entropy.size:
                    answers.entropy[position] = logarithm - sums.surprise / total
                if answers.rank.size:
                    answers.rank[position] = sums.before if y >= 0 and peak == peak else -1
                if answers.prediction.size:
                    answers.prediction[position] = best_at
            if log_probs.data.size or gradient.data.size:
                factors = weigh_gradient(known, y, softly, sample, rule)
                written(
                    position, logits, first, soft, y, peak, logarithm, factors, rule, log_probs,
                    gradient,
                )  # fmt: skip

    return take_care
