"""Outputs beside the loss of one position whose classes are contiguous.

The row was just summed, so it is read again from cache; each output is one short loop over it.
"""

from __future__ import annotations

import math
from typing import Any

from numba import types

from kernels.compiled import by_type, called, inlined
from kernels.cpu.logit import capped, read_first, slope
from kernels.cpu.sums.rows import BLOCK
from kernels.cpu.tile import LEAN, LOG2, MINUS, OWN, PULL, PUSH, TOTAL
from kernels.formula import ALONE
from kernels.plan import place
from kernels.simd import (
    before_line,
    beyond_cache,
    constant,
    element,
    exp2,
    exp2_four,
    fma,
    less_at,
    load,
    load_first,
    loads_after,
    max_across,
    maximum,
    minimum,
    store,
    store_first,
    store_past,
    sum_across,
    where_equal,
    where_greater,
    width,
)

# Classes added in float32 lanes: many equal terms round the same way, and 4096 of them were off by
# 3.6e-6 of the entropy.
ENTROPY_BLOCK = 512


@by_type
def least_exponent(like: Any) -> Any:
    """Exponent, in each lane, of the smallest normal number of the type that the array ``like`` is
    computed in; exp2 stops there.
    """
    least = -1022.0 if like.dtype == types.float64 else -126.0

    def in_each_lane(like: Any) -> Any:
        return constant(like, least)

    return in_each_lane


@inlined
def log_prob_of(like: Any, value: Any, t: Any, total: Any, log2_total: Any, options: Any) -> Any:
    """Log-probabilities, or probabilities if ``options.probs``, of the logits ``value``, whose
    exponents of 2 are ``t``.

    A class whose power alone is the whole sum has exactly 0, or 1.
    """
    zero, one, power = constant(like, 0.0), constant(like, 1.0), exp2(t)
    if options.probs:
        power = where_greater(t, least_exponent(like), power, zero)
        return where_equal(power, total, one, power / total)
    nats = where_equal(power, total, zero, minimum(zero, t - log2_total))
    nats = nats * constant(like, options.to_nats)
    return where_greater(constant(like, -ALONE), t, value * constant(like, options.unit), nats)


@inlined
def before_past(out: Any, first: int, classes: int) -> int:
    """Number of a row's first elements that are stored before ``store_past`` may begin; 0 where
    the array ``out`` is not stored past the caches.
    """
    return before_line(out, first) if beyond_cache(out, classes) else 0


@inlined
def store_rest(out: Any, index: int, rest: int, value: Any, past: bool) -> None:
    """Write ``rest`` elements at most; a whole cache line ``past`` the caches, if it may be."""
    if past and rest >= width(out):
        store_past(out, index, value)
    else:
        store_first(out, index, rest, value)


@called
def write_log_probs(
    logits: Any, out: Any, position: int, scratch: Any, at: int, options: Any
) -> None:
    """Write log-probabilities to ``out``, a ``View`` that lies in memory as ``logits`` do."""
    x, y, classes = logits.data, out.data, logits.classes
    first, out_first = place(logits, position), place(out, position)
    scales, minus = constant(x, options.scale), constant(x, scratch[MINUS, at])
    total, log2_total = constant(x, scratch[TOTAL, at]), constant(x, scratch[LOG2, at])
    zero, head, past = (
        constant(x, 0.0),
        before_past(y, out_first, classes),
        beyond_cache(y, classes),
    )
    for part in range(2):
        start, stop = (0, head) if part == 0 else (head, classes)
        for i in range(start, stop, width(x)):
            value = read_first(x, first + i, stop - i, zero, options.cap)
            t = fma(value, scales, minus)
            log_prob = log_prob_of(x, value, t, total, log2_total, options)
            store_rest(y, out_first + i, stop - i, log_prob, past)


@inlined
def _slopes_of_four(
    x: Any, first: int, scales: Any, minus: Any, push: Any, rest: Any
) -> tuple[Any, Any, Any, Any]:
    """Gradient by four registers of logits, without the label's own part."""
    step, least, zero = width(x), least_exponent(x), constant(x, 0.0)
    loads_after()
    a, b = fma(load(x, first), scales, minus), fma(load(x, first + step), scales, minus)
    c = fma(load(x, first + 2 * step), scales, minus)
    d = fma(load(x, first + 3 * step), scales, minus)
    p, q, r, s = exp2_four(a, b, c, d)
    p, q = where_greater(a, least, p, zero), where_greater(b, least, q, zero)
    r, s = where_greater(c, least, r, zero), where_greater(d, least, s, zero)
    return fma(p, push, rest), fma(q, push, rest), fma(r, push, rest), fma(s, push, rest)


@inlined
def _less_own(four: Any, lane: int, own: Any, step: int) -> tuple[Any, Any, Any, Any]:
    """Subtract ``own`` from the ``lane`` of four registers."""
    a, b, c, d = four
    a, b = less_at(a, lane, own), less_at(b, lane - step, own)
    return a, b, less_at(c, lane - 2 * step, own), less_at(d, lane - 3 * step, own)


@inlined
def _store_four(out: Any, index: int, values: Any, past: bool) -> None:
    """Write four registers, ``past`` the caches if they are whole cache lines."""
    step = width(out)
    if past:
        for k in range(4):
            store_past(out, index + k * step, values[k])
    else:
        for k in range(4):
            store(out, index + k * step, values[k])


@called
def write_gradient(
    logits: Any, soft: Any, out: Any, position: int, y: int, scratch: Any, at: int, options: Any
) -> None:
    """Write the gradient by the position's logits; see ``formula.gradient_factors``."""
    x, z, classes, step = logits.data, out.data, logits.classes, width(logits.data)
    first, out_first = place(logits, position), place(out, position)
    soft_first = place(soft, position)
    scales, minus = constant(x, options.scale), constant(x, scratch[MINUS, at])
    push = constant(x, scratch[PUSH, at] / scratch[TOTAL, at])
    pull, lean = constant(x, scratch[PULL, at]), constant(x, 0.0)
    if options.focal > 0.0:
        lean = constant(x, scratch[LEAN, at] / scratch[TOTAL, at])
    keep, spread = constant(x, options.keep), constant(x, options.spread)
    own, zero = constant(x, scratch[OWN, at]), constant(x, 0.0)
    if y >= 0:
        own = slope(x, constant(x, element(x, first + y)), options.cap, own)
    past, head = beyond_cache(z, classes), before_past(z, out_first, classes)
    whole = head
    if options.cap is None and options.lane_weight.size == 0:
        whole += (classes - head) // (4 * step) * (4 * step)
        for i in range(head, whole, 4 * step):
            slopes = _slopes_of_four(x, first + i, scales, minus, push, zero - pull * zero)
            if i <= y < i + 4 * step:
                slopes = _less_own(slopes, y - i, own, step)
            _store_four(z, out_first + i, slopes, past)
    for part in range(2):
        start, stop = (0, head) if part == 0 else (whole, classes)
        for i in range(start, stop, step):
            rest = stop - i
            raw = load_first(x, first + i, rest, zero)
            t = fma(capped(x, raw, options.cap), scales, minus)
            power = where_greater(t, least_exponent(x), exp2(t), zero)
            share, pushed = zero, push
            if options.lane_weight.size:
                share = spread
                if soft.data.size:
                    given = load_first(soft.data, soft_first + i, rest, zero)
                    share, pushed = fma(given, keep, spread), push - lean * given
                share = share * load_first(options.lane_weight, i, rest, zero)
            gradient = fma(power, pushed, zero - pull * share)
            gradient = less_at(slope(x, raw, options.cap, gradient), y - i, own)
            store_rest(z, out_first + i, rest, gradient, past)


@called
def write_zeros(out: Any, position: int) -> None:
    """Write the gradient of an ignored position: 0, whatever its logits are."""
    first = place(out, position)
    for c in range(out.classes):
        out.data[first + c * out.class_stride] = 0.0


@called
def entropy(logits: Any, position: int, scratch: Any, at: int, options: Any) -> float:
    """Entropy of the softmax, -sum(p * log(p)), in nats; a class of probability 0 adds 0.

    The shift moves to the integer nearest to the log-sum-exp: exponents of likely classes, and
    their rounding errors, are small then.
    """
    x, first, classes, expected = logits.data, place(logits, position), logits.classes, 0.0
    move = math.floor(scratch[LOG2, at] + 0.5)
    scales, minus = constant(x, options.scale), constant(x, scratch[MINUS, at] - move)
    zero, lowest = constant(x, 0.0), constant(x, -math.inf)
    for start in range(0, classes, ENTROPY_BLOCK):
        part = zero
        stop = min(start + ENTROPY_BLOCK, classes)
        for i in range(start, stop, width(x)):
            t = fma(read_first(x, first + i, stop - i, lowest, options.cap), scales, minus)
            part = part + where_greater(t, least_exponent(x), exp2(t) * t, zero)
        expected += sum_across(part)
    mean = expected / (scratch[TOTAL, at] * 2.0 ** -float(move))
    return max(0.0, (scratch[LOG2, at] - move - mean) * options.to_nats)


@called
def rank(logits: Any, position: int, y: int) -> int:
    """Number of classes before the label: larger logits, and equal ones of lower index.

    Logits are compared without the cap, which keeps their order, but may round two to one float32.
    """
    x, first, classes = logits.data, place(logits, position), logits.classes
    own, one, zero = constant(x, element(x, first + y)), constant(x, 1.0), constant(x, 0.0)
    nothing = constant(x, math.nan)
    before = 0.0
    for start in range(0, classes, BLOCK):
        part = zero
        stop = min(start + BLOCK, classes)
        for i in range(start, stop, width(x)):
            value = load_first(x, first + i, stop - i, nothing)
            part = part + where_greater(value, own, one, zero)
        for i in range(start, min(stop, y), width(x)):
            value = load_first(x, first + i, min(stop, y) - i, nothing)
            part = part + where_equal(value, own, one, zero)
        before += sum_across(part)
    return int(before)


@called
def prediction(logits: Any, position: int) -> int:
    """Class of the largest logit without the cap (see ``rank``), the first of equals."""
    x, first, classes = logits.data, place(logits, position), logits.classes
    lowest, best, found = constant(x, -math.inf), -math.inf, 0
    for start in range(0, classes, BLOCK):
        stop, largest = min(start + BLOCK, classes), lowest
        for i in range(start, stop, width(x)):
            largest = maximum(load_first(x, first + i, stop - i, lowest), largest)
        if max_across(largest) > best:
            best, found = max_across(largest), start
    peak, one, zero = constant(x, best), constant(x, 1.0), constant(x, 0.0)
    nothing = constant(x, math.nan)
    for i in range(found, classes, width(x)):
        value = load_first(x, first + i, classes - i, nothing)
        if sum_across(where_equal(value, peak, one, zero)) > 0.0:
            for c in range(i, min(i + width(x), classes)):
                if element(x, first + c) == best:
                    return c
    return 0
