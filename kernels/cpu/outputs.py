"""What is wanted beside the loss, for a step of positions that was just summed."""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined
from kernels.cpu.arguments import place
from kernels.cpu.careful import class_weight, exact, exact_slope, scaled_gap
from kernels.cpu.output_planes import (
    entropies,
    predictions,
    ranks,
    write_gradient_abreast,
    write_log_probs_abreast,
)
from kernels.cpu.output_rows import (
    entropy,
    prediction,
    rank,
    write_gradient,
    write_log_probs,
    write_zeros,
)
from kernels.cpu.tile import CAREFUL, MASS, OWN, PEAK, PULL, PUSH, TINY, TOTAL, log_sum_exp
from kernels.simd import element, width


@inlined
def _weigh_gradient(
    logits: Any,
    soft: bool,
    labels: Any,
    options: Any,
    lo: int,
    count: int,
    label: Any,
    scratch: Any,
    at: int,
) -> None:
    """PUSH, PULL and OWN: the gradient by class c is PUSH * p[c] - PULL * q[c] - OWN * (c == y).

    With q as in ``rows.sum_soft`` (class weights times ``spread`` for class indices), and for
    z-loss 2 * z_loss * log_sum_exp more in PUSH: the derivatives of the loss's terms. Without
    options that is p - onehot.
    """
    for i in range(at, at + count):
        scratch[PUSH, i], scratch[PULL, i], scratch[OWN, i] = 0.0, 0.0, 0.0
        if label[i] < 0 and not soft:
            continue
        factor = options.upstream * options.unit
        if labels.sample_weight.size:
            factor *= labels.sample_weight[lo + i - at]
        push, own = 0.0, 0.0
        if not soft:
            own = options.keep
            if options.weight.size:
                own *= options.weight[label[i]]
        if soft:
            push = scratch[MASS, i]
        elif options.lane_weight.size:
            push = own + options.spread * scratch[MASS, i]
        else:
            push = own
        if options.z_loss > 0.0:
            push += 2.0 * (options.z_loss * log_sum_exp(scratch, i, options)) / TINY
        scratch[PUSH, i], scratch[PULL, i], scratch[OWN, i] = factor * push, factor, factor * own


@called
def _careful_outputs(
    logits: Any,
    soft: Any,
    options: Any,
    results: Any,
    log_probs: Any,
    gradient: Any,
    position: int,
    y: int,
    scratch: Any,
    at: int,
) -> None:
    """All of one position, in float64, where the fast way cannot represent it."""
    x, first, stride = logits.data, place(logits, position), logits.class_stride
    out_first, soft_first = place(log_probs, position), place(soft, position)
    gradient_first = place(gradient, position)
    peak, total, cap = scratch[PEAK, at], scratch[TOTAL, at], options.cap
    logarithm, surprise, before, nan = math.log(total), 0.0, 0, False
    best, largest, own = 0, element(x, first), element(x, first + max(y, 0) * stride)
    for c in range(logits.classes):
        raw = element(x, first + c * stride)
        if not nan and (math.isnan(raw) or raw > largest):
            best, largest, nan = c, raw, math.isnan(raw)
        before += raw > own or (raw == own and c < y)
        value = exact(x, first + c * stride, cap)
        log_prob = scaled_gap(value, peak, options.unit) - logarithm
        p = math.exp(log_prob)
        if p != 0.0:
            surprise -= p * log_prob
        if log_probs.data.size:
            log_probs.data[out_first + c * log_probs.class_stride] = (
                p if options.probs else log_prob
            )
        if gradient.data.size:
            share = 0.0
            if options.lane_weight.size:
                share = options.spread
                if soft.data.size:
                    share += options.keep * element(soft.data, soft_first + c * soft.class_stride)
                share *= class_weight(options, c)
            value_of = scratch[PUSH, at] * p - scratch[PULL, at] * share
            if c == y:
                value_of -= scratch[OWN, at]
            value_of *= exact_slope(raw, cap)
            if y < 0 and not soft.data.size:
                value_of = 0.0
            gradient.data[gradient_first + c * gradient.class_stride] = value_of
    if results.entropy.size:
        results.entropy[position] = surprise
    if results.rank.size:
        results.rank[position] = -1 if nan or y < 0 else before
    if results.prediction.size:
        results.prediction[position] = best


@inlined
def _row_outputs(
    logits: Any,
    soft: Any,
    options: Any,
    results: Any,
    log_probs: Any,
    gradient: Any,
    position: int,
    y: int,
    scratch: Any,
    at: int,
) -> None:
    if log_probs.data.size:
        write_log_probs(logits, log_probs, position, scratch, at, options)
    if gradient.data.size and y < 0 and not soft.data.size:
        write_zeros(gradient, position)
    elif gradient.data.size:
        write_gradient(logits, soft, gradient, position, y, scratch, at, options)
    if results.entropy.size:
        results.entropy[position] = entropy(logits, position, scratch, at, options)
    if results.rank.size:
        results.rank[position] = -1
        if y >= 0:
            results.rank[position] = rank(logits, position, y)
    if results.prediction.size:
        results.prediction[position] = prediction(logits, position)


@inlined
def _plane_outputs(
    logits: Any,
    soft: Any,
    options: Any,
    results: Any,
    log_probs: Any,
    gradient: Any,
    position: int,
    count: int,
    label: Any,
    scratch: Any,
    at: int,
) -> None:
    if log_probs.data.size:
        write_log_probs_abreast(logits, log_probs, position, count, scratch, at, options)
    if gradient.data.size:
        write_gradient_abreast(logits, soft, gradient, position, count, label, scratch, at, options)
    if results.entropy.size:
        entropies(logits, position, count, scratch, at, options, results.entropy)
    if results.rank.size:
        ranks(logits, position, count, label, scratch, at, results.rank)
        for i in range(count):
            if label[at + i] < 0:
                results.rank[position + i] = -1
    if results.prediction.size:
        predictions(logits, position, count, scratch, results.prediction)


@inlined
def output_step(
    logits: Any,
    soft: Any,
    labels: Any,
    options: Any,
    results: Any,
    log_probs: Any,
    gradient: Any,
    lo: int,
    count: int,
    label: Any,
    scratch: Any,
    at: int,
) -> None:
    """Writes what is wanted of ``count`` positions from ``lo`` on; ``scratch`` from ``at`` on."""
    if gradient.data.size:
        _weigh_gradient(logits, soft.data.size > 0, labels, options, lo, count, label, scratch, at)
    if results.log_sum_exp.size:
        for i in range(count):
            results.log_sum_exp[lo + i] = log_sum_exp(scratch, at + i, options) / TINY
    if logits.class_stride == 1:
        for i in range(count):
            y = label[at + i]
            if scratch[CAREFUL, at + i] == 0.0:
                _row_outputs(
                    logits, soft, options, results, log_probs, gradient, lo + i, y, scratch, at + i
                )
    else:
        step = width(logits.data)
        for i in range(0, count, step):
            few = min(count - i, step)
            _plane_outputs(
                logits,
                soft,
                options,
                results,
                log_probs,
                gradient,
                lo + i,
                few,
                label,
                scratch,
                at + i,
            )
    for i in range(count):
        if scratch[CAREFUL, at + i] != 0.0:
            _careful_outputs(
                logits,
                soft,
                options,
                results,
                log_probs,
                gradient,
                lo + i,
                label[at + i],
                scratch,
                at + i,
            )
