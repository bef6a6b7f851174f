"""Outputs beside the loss of a register of neighbouring positions, whose classes are strided."""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called
from kernels.cpu.logit import capped, read_first, slope
from kernels.cpu.outputs.rows import least_exponent, log_prob_of
from kernels.cpu.sums.planes import CLASS_BLOCK, accumulate, narrowed
from kernels.cpu.tile import LEAN, LOG2, LOSS, MINUS, OWN, PULL, PUSH, SPARE, TOTAL
from kernels.plan import place
from kernels.simd import (
    constant,
    element,
    exp2,
    fma,
    load_first,
    store_first,
    where_equal,
    where_greater,
)


@called
def write_log_probs_abreast(
    logits: Any, out: Any, position: int, count: int, scratch: Any, at: int, options: Any
) -> None:
    """``outputs.rows.write_log_probs`` for ``count`` positions."""
    x, stride = logits.data, logits.class_stride
    first, out_first = place(logits, position), place(out, position)
    scales, minus = constant(x, options.scale), narrowed(scratch[MINUS, at:], x)
    total, log2_total = narrowed(scratch[TOTAL, at:], x), narrowed(scratch[LOG2, at:], x)
    zero = constant(x, 0.0)
    for c in range(logits.classes):
        value = read_first(x, first + c * stride, count, zero, options.cap)
        t = fma(value, scales, minus)
        log_prob = log_prob_of(x, value, t, total, log2_total, options)
        store_first(out.data, out_first + c * out.class_stride, count, log_prob)


@called
def write_gradient_abreast(
    logits: Any, soft: Any, out: Any, position: int, count: int, label: Any, scratch: Any, at: int,
    options: Any,
) -> None:  # fmt: skip
    """``outputs.rows.write_gradient`` for ``count`` positions."""
    x, stride, zero = logits.data, logits.class_stride, constant(logits.data, 0.0)
    first, out_first = place(logits, position), place(out, position)
    soft_first = place(soft, position)
    scales, minus = constant(x, options.scale), narrowed(scratch[MINUS, at:], x)
    push = narrowed(scratch[PUSH, at:], x) / narrowed(scratch[TOTAL, at:], x)
    pull, own = narrowed(scratch[PULL, at:], x), narrowed(scratch[OWN, at:], x)
    keep, spread, lean = constant(x, options.keep), constant(x, options.spread), zero
    if options.focal > 0.0:
        lean = narrowed(scratch[LEAN, at:], x) / narrowed(scratch[TOTAL, at:], x)
    labels = scratch[SPARE]
    for i in range(count):
        labels[i] = label[at + i]
    hot = narrowed(labels, x)
    for c in range(logits.classes):
        raw = load_first(x, first + c * stride, count, zero)
        t = fma(capped(x, raw, options.cap), scales, minus)
        power = where_greater(t, least_exponent(x), exp2(t), zero)
        share, pushed = zero, push
        if options.lane_weight.size:
            share = spread
            if soft.data.size:
                p = load_first(soft.data, soft_first + c * soft.class_stride, count, zero)
                share, pushed = fma(p, keep, spread), push - lean * p
            share = share * constant(x, options.lane_weight[c])
        gradient = fma(power, pushed, zero - pull * share)
        if not soft.data.size:
            gradient = gradient - where_equal(hot, constant(x, float(c)), own, zero)
            gradient = where_greater(zero, hot, zero, gradient)  # ignored: 0, even of NaN
        gradient = slope(x, raw, options.cap, gradient)
        store_first(out.data, out_first + c * out.class_stride, count, gradient)


@called
def entropies(
    logits: Any, position: int, count: int, scratch: Any, at: int, options: Any, out: Any
) -> None:
    """``outputs.rows.entropy`` of ``count`` positions, written to ``out``."""
    x, stride, first = logits.data, logits.class_stride, place(logits, position)
    # Losses are weighed after all outputs: until then their row of scratch is free.
    zero, expected, moved = constant(x, 0.0), scratch[SPARE], scratch[LOSS]
    for i in range(count):
        moved[i] = scratch[MINUS, at + i] - math.floor(scratch[LOG2, at + i] + 0.5)
    scales, minus = constant(x, options.scale), narrowed(moved, x)
    expected[:16] = 0.0
    for start in range(0, logits.classes, CLASS_BLOCK):
        part = zero
        for c in range(start, min(start + CLASS_BLOCK, logits.classes)):
            t = fma(read_first(x, first + c * stride, count, zero, options.cap), scales, minus)
            part = part + where_greater(t, least_exponent(x), exp2(t) * t, zero)
        accumulate(expected, 0, part)
    for i in range(count):
        move = scratch[MINUS, at + i] - moved[i]
        mean = expected[i] / (scratch[TOTAL, at + i] * 2.0**-move)
        out[position + i] = max(0.0, (scratch[LOG2, at + i] - move - mean) * options.to_nats)


@called
def ranks(
    logits: Any, position: int, count: int, label: Any, scratch: Any, at: int, out: Any
) -> None:
    """``outputs.rows.rank`` of ``count`` positions, written to ``out``."""
    x, stride, first = logits.data, logits.class_stride, place(logits, position)
    # Losses are weighed after all outputs: until then their row of scratch is free.
    zero, one, labels, owns = constant(x, 0.0), constant(x, 1.0), scratch[SPARE], scratch[LOSS]
    for i in range(count):
        labels[i] = label[at + i]
        owns[i] = element(x, first + i + max(label[at + i], 0) * stride)
    hot, own, before = narrowed(labels, x), narrowed(owns, x), zero
    for c in range(logits.classes):
        value = load_first(x, first + c * stride, count, zero)
        tie = where_greater(hot, constant(x, float(c)), one, zero)
        equal = where_equal(value, own, tie, zero)
        before = before + where_greater(value, own, one, equal)
    labels[:16] = 0.0
    accumulate(labels, 0, before)
    for i in range(count):
        out[position + i] = int(labels[i])


@called
def predictions(logits: Any, position: int, count: int, scratch: Any, out: Any) -> None:
    """``outputs.rows.prediction`` of ``count`` positions, written to ``out``."""
    x, stride, first = logits.data, logits.class_stride, place(logits, position)
    best, found, zero = constant(x, -math.inf), constant(x, 0.0), constant(x, 0.0)
    for c in range(logits.classes):
        value = load_first(x, first + c * stride, count, zero)
        found = where_greater(value, best, constant(x, float(c)), found)
        best = where_greater(value, best, value, best)
    spare = scratch[SPARE]
    spare[:16] = 0.0
    accumulate(spare, 0, found)
    for i in range(count):
        out[position + i] = int(spare[i])
