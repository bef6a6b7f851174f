"""Kernels for outputs with a value a class: log-softmax, softmax and gradient.

They read the logits a second time, from the L2 cache, and what was summed from ``Results.state``.
Values have the meaning of ``cpu.outputs.rows``' and ``cpu.outputs.planes``'.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numba import cuda

from kernels.cuda.kinds import TABLE, Kind, target
from kernels.cuda.loss.position import LEAN, LOG2, MINUS, OWN, PULL, PUSH, TOTAL, label_of, place
from kernels.cuda.sums.thread import functions
from kernels.formula import ALONE, LOG2E

device, exp2, fma, element = target.device, target.exp2, target.fma, target.element


@lru_cache
def log_prob_of(kind: Kind) -> Any:
    """Function: the log-probability, or the probability if ``options.probs``, of a logit."""
    real, alone = kind.real, kind.real(-ALONE)

    @device
    def log_prob(value: Any, t: Any, total: Any, log2_total: Any, options: Any) -> Any:
        """A class whose power alone is the whole sum has exactly 0, or probability 1."""
        power = exp2(t)
        if options.probs:
            return power / total
        if power == total:
            return real(0.0)
        if t < alone:
            return value * options.reals.unit
        return min(real(0.0), t - log2_total) * options.reals.to_nats

    return log_prob


def _slope(kind: Kind) -> Any:
    """Function: the gradient by a logit's element ``raw``, from that by the capped logit."""
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
        raw: Any, power: Any, c: int, y: int, factors: Any, options: Any, soft: Any, soft_at: int
    ) -> Any:
        push, pull, own, lean = factors
        slant = power * push
        if smooth:
            share = options.reals.spread
            if softly:
                given = element(soft.data, soft_at)
                slant = power * (push - lean * given)
                share = fma(given, options.reals.keep, share)
            slant = fma(-pull, share * options.lane_weight[c], slant)
        if c == y:
            slant -= own
        return sloped(slant, raw, options.reals.cap)

    return gradient


@lru_cache
def per_class_kernel(kind: Kind, rows: bool) -> Any:
    """Kernel that writes ``log_probs`` and ``gradient`` where they are wanted.

    Block y is of a segment of classes; for ``rows`` block x is of a position, and a thread of a
    class; for planes block x is of some positions, and a thread of one of them.
    """
    real, logit, softly = kind.real, functions(kind).logit, kind.soft
    log_prob, gradient_of = log_prob_of(kind), _gradient(kind)
    segment, threads = TABLE.plane_segment, TABLE.threads

    @target.kernel(threads)
    def write_per_class(
        logits: Any, soft: Any, labels: Any, options: Any, state: Any, log_probs: Any,
        gradient: Any,
    ) -> None:  # fmt: skip
        block, thread = cuda.blockIdx.x, cuda.threadIdx.x
        position, part = block if rows else block * threads + thread, cuda.blockIdx.y
        c, step = part * segment + (thread if rows else 0), threads if rows else 1
        stop = min((part + 1) * segment, logits.classes)
        if position >= logits.positions or math.isnan(state[TOTAL, position]):
            return
        y, reals = label_of(labels, position, logits.classes), options.reals
        minus, log2_total = real(state[MINUS, position]), real(state[LOG2, position])
        total = real(state[TOTAL, position])
        push = real(state[PUSH, position] / state[TOTAL, position])
        lean = real(state[LEAN, position] / state[TOTAL, position])
        factors = push, real(state[PULL, position]), real(state[OWN, position]), lean
        first, out = place(logits, position), place(gradient, position)
        soft_first = place(soft, position) if softly else 0
        out_log = place(log_probs, position)
        while c < stop:
            raw = element(logits.data, first + c * logits.class_stride)
            value = logit(raw, reals.cap)
            t = fma(value, reals.scale, minus)
            if log_probs.data.size:
                at = out_log + c * log_probs.class_stride
                log_probs.data[at] = log_prob(value, t, total, log2_total, options)
            if gradient.data.size:
                slant = real(0.0)  # for an ignored label, even of NaN
                if softly or y >= 0:
                    at = soft_first + c * soft.class_stride
                    slant = gradient_of(raw, exp2(t), c, y, factors, options, soft, at)
                gradient.data[out + c * gradient.class_stride] = slant
            c += step

    return write_per_class
