"""What has a value for each class: log-softmax, softmax and the gradient, from ``Answers.state``.

The logits are read a second time, from the L2 cache: they were just summed. Each position is
written as ``cpu.output_rows`` and ``cpu.output_planes`` do.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numba import cuda

from kernels.cuda.kinds import TABLE, Kind, target
from kernels.cuda.losses import LOG2, MINUS, OWN, PULL, PUSH, TOTAL, label_of
from kernels.cuda.rows import place
from kernels.cuda.sums import functions

device, exp2, fma, element = target.device, target.exp2, target.fma, target.element


def _log_prob(kind: Kind) -> Any:
    real = kind.real

    @device
    def log_prob(t: Any, total: Any, log2_total: Any, rule: Any) -> Any:
        """A class whose power alone is the whole sum has exactly 0, or probability 1."""
        power = exp2(t)
        if rule.probs:
            return power / total
        if power == total:
            return real(0.0)
        return min(real(0.0), t - log2_total) * real(rule.to_nats)

    return log_prob


def _slope(kind: Kind) -> Any:
    """A function: the gradient by a logit's element, from that by the logit."""
    capped = kind.capped

    @device
    def sloped(gradient: Any, value: Any, cap: Any) -> Any:
        if not capped:
            return gradient
        share = value / cap
        return gradient - gradient * (share * share)

    return sloped


def _gradient(kind: Kind) -> Any:
    real, smooth, softly, sloped = kind.real, kind.smooth, kind.soft, _slope(kind)

    @device
    def gradient(
        value: Any, power: Any, c: int, y: int, factors: Any, rule: Any, soft: Any, soft_at: int
    ) -> Any:
        push, pull, own = factors
        slant = power * push
        if smooth:
            share = real(rule.spread)
            if softly:
                share = fma(element(soft.data, soft_at), real(rule.keep), share)
            slant = fma(-pull, share * rule.lane_weight[c], slant)
        if c == y:
            slant -= own
        return sloped(slant, value, real(rule.cap))

    return gradient


@lru_cache
def per_class_kernel(kind: Kind, rows: bool) -> Any:
    """The kernel that writes ``log_probs`` and ``gradient`` where they are wanted.

    For ``rows`` block x takes a segment of classes of position y, a class a thread; for planes
    block x takes some positions, a position a thread, and y a segment of classes.
    """
    real, logit, softly = kind.real, functions(kind).logit, kind.soft
    log_prob, gradient_of = _log_prob(kind), _gradient(kind)
    segment, threads = TABLE.plane_segment, TABLE.threads

    @target.kernel(threads)
    def write_per_class(
        logits: Any, soft: Any, labels: Any, rule: Any, state: Any, log_probs: Any, gradient: Any,
        segments: int,
    ) -> None:  # fmt: skip
        block, thread = cuda.blockIdx.x, cuda.threadIdx.x
        position = block // segments if rows else block * threads + thread
        part = block % segments if rows else cuda.blockIdx.y
        c, step = part * segment + (thread if rows else 0), threads if rows else 1
        stop = min((part + 1) * segment, logits.classes)
        if position >= logits.positions or math.isnan(state[TOTAL, position]):
            return
        y, cap, scale = label_of(labels, position, logits.classes), real(rule.cap), real(rule.scale)
        minus, log2_total = real(state[MINUS, position]), real(state[LOG2, position])
        total = real(state[TOTAL, position])
        push = real(state[PUSH, position] / state[TOTAL, position])
        factors = push, real(state[PULL, position]), real(state[OWN, position])
        first, out = place(logits, position), place(gradient, position)
        soft_first = place(soft, position) if softly else 0
        out_log = place(log_probs, position)
        while c < stop:
            value = logit(element(logits.data, first + c * logits.class_stride), cap)
            t = fma(value, scale, minus)
            if log_probs.data.size:
                at = out_log + c * log_probs.class_stride
                log_probs.data[at] = log_prob(t, total, log2_total, rule)
            if gradient.data.size:
                slant = real(0.0)  # where the label is ignored, whatever the logits are
                if softly or y >= 0:
                    at = soft_first + c * soft.class_stride
                    slant = gradient_of(value, exp2(t), c, y, factors, rule, soft, at)
                gradient.data[out + c * gradient.class_stride] = slant
            c += step

    return write_per_class
