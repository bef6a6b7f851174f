"""What has a value for each class: log-softmax, softmax and the gradient, from ``Answers.state``.

The logits are read a second time, from the L2 cache: they were just summed. Each position is
written as ``cpu.output_rows`` and ``cpu.output_planes`` do.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numba import cuda

from kernels.cpu.logit import LOG2E
from kernels.cpu.output_rows import ALONE
from kernels.cuda.kinds import TABLE, Kind, target
from kernels.cuda.losses import LOG2, MINUS, OWN, PULL, PUSH, TOTAL, label_of
from kernels.cuda.rows import place
from kernels.cuda.sums import functions

device, exp2, fma, element = target.device, target.exp2, target.fma, target.element


def _log_prob(kind: Kind) -> Any:
    real, alone = kind.real, kind.real(-ALONE)

    @device
    def log_prob(value: Any, t: Any, total: Any, log2_total: Any, rule: Any) -> Any:
        """A class whose power alone is the whole sum has exactly 0, or probability 1."""
        power = exp2(t)
        if rule.probs:
            return power / total
        if power == total:
            return real(0.0)
        if t < alone:
            return value * rule.reals.unit
        return min(real(0.0), t - log2_total) * rule.reals.to_nats

    return log_prob


def _slope(kind: Kind) -> Any:
    """A function: the gradient by a logit's element ``raw``, from that by the logit."""
    real, capped = kind.real, kind.capped

    @device
    def sloped(gradient: Any, raw: Any, cap: Any) -> Any:
        if not capped:
            return gradient
        # 1 - tanh(z)**2 by exp(-2 * abs(z)): near the cap the difference has no digits left.
        power = exp2(real(-2.0 * LOG2E) * abs(raw / cap))
        half = real(2.0) / (real(1.0) + power)
        return gradient * (power * (half * half))

    return sloped


def _gradient(kind: Kind) -> Any:
    smooth, softly, sloped = kind.smooth, kind.soft, _slope(kind)

    @device
    def gradient(
        raw: Any, power: Any, c: int, y: int, factors: Any, rule: Any, soft: Any, soft_at: int
    ) -> Any:
        push, pull, own = factors
        slant = power * push
        if smooth:
            share = rule.reals.spread
            if softly:
                share = fma(element(soft.data, soft_at), rule.reals.keep, share)
            slant = fma(-pull, share * rule.lane_weight[c], slant)
        if c == y:
            slant -= own
        return sloped(slant, raw, rule.reals.cap)

    return gradient


@lru_cache
def per_class_kernel(kind: Kind, rows: bool) -> Any:
    """The kernel that writes ``log_probs`` and ``gradient`` where they are wanted.

    Block y takes a segment of classes; for ``rows`` block x a position, and a thread a class; for
    planes block x some positions, and a thread one of them.
    """
    real, logit, softly = kind.real, functions(kind).logit, kind.soft
    log_prob, gradient_of = _log_prob(kind), _gradient(kind)
    segment, threads = TABLE.plane_segment, TABLE.threads

    @target.kernel(threads)
    def write_per_class(
        logits: Any, soft: Any, labels: Any, rule: Any, state: Any, log_probs: Any, gradient: Any,
    ) -> None:  # fmt: skip
        block, thread = cuda.blockIdx.x, cuda.threadIdx.x
        position, part = block if rows else block * threads + thread, cuda.blockIdx.y
        c, step = part * segment + (thread if rows else 0), threads if rows else 1
        stop = min((part + 1) * segment, logits.classes)
        if position >= logits.positions or math.isnan(state[TOTAL, position]):
            return
        y, reals = label_of(labels, position, logits.classes), rule.reals
        minus, log2_total = real(state[MINUS, position]), real(state[LOG2, position])
        total = real(state[TOTAL, position])
        push = real(state[PUSH, position] / state[TOTAL, position])
        factors = push, real(state[PULL, position]), real(state[OWN, position])
        first, out = place(logits, position), place(gradient, position)
        soft_first = place(soft, position) if softly else 0
        out_log = place(log_probs, position)
        while c < stop:
            raw = element(logits.data, first + c * logits.class_stride)
            value = logit(raw, reals.cap)
            t = fma(value, reals.scale, minus)
            if log_probs.data.size:
                at = out_log + c * log_probs.class_stride
                log_probs.data[at] = log_prob(value, t, total, log2_total, rule)
            if gradient.data.size:
                slant = real(0.0)  # where the label is ignored, whatever the logits are
                if softly or y >= 0:
                    at = soft_first + c * soft.class_stride
                    slant = gradient_of(raw, exp2(t), c, y, factors, rule, soft, at)
                gradient.data[out + c * gradient.class_stride] = slant
            c += step

    return write_per_class
