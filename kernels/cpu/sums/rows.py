"""Sums over the contiguous classes of one position, in one read.

With t = x * scale - shift, sum(2**t) needs no exact maximum: any ``shift`` that keeps t in range
gives the same log-sum-exp, and float32 has the range. So the shift is guessed from the row's
first values, and only a block whose sum grows past ``BLOCK_LIMIT`` is done again with its own
maximum. The shift is an integer, which makes undoing it, and rescaling by it, exact.

Rows that have no such sum (NaN, infinities, shifts beyond ``LARGEST_SHIFT``) are left to
``careful``: the total is NaN then.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined, never_inlined
from kernels.cpu.logit import Scale, read_first
from kernels.cpu.sums.powers import sum_powers, sum_tracked
from kernels.formula import LARGEST_SHIFT
from kernels.simd import (
    constant,
    exp2,
    fma,
    load_first,
    max_across,
    maximum,
    min_across,
    minimum,
    sum_across,
    where_equal,
    width,
)

# Elements summed in float32 lanes before the sum moves on in float64: a flat float32 sum of
# 262144 values was off by 5.6e-6. A block that is done again is still in L1.
BLOCK = 4096
# Classes of a segment. Each guesses afresh, so that threads that share a long row compute what one
# thread would.
SEGMENT = 65536
# t up to 18 costs at most 6.6e-7 in float32: half an ulp of t, times ln 2.
BLOCK_LIMIT = 2.0**18
GUESS = 64


@inlined
def shift_for(x: Any, first: int, count: int, options: Any) -> float:
    """Integer nearest to scale * max(x), within +-LARGEST_SHIFT; NaNs are passed over."""
    lowest = constant(x, -math.inf)
    largest = lowest
    for i in range(0, count, width(x)):
        largest = maximum(read_first(x, first + i, count - i, lowest, options.cap), largest)
    shift = math.floor(max_across(largest) * options.scale + 0.5)
    return min(max(shift, -LARGEST_SHIFT), LARGEST_SHIFT)


@inlined
def _sum_block(
    x: Any, first: int, count: int, options: Any, shift: float, maxima: Any, c: int
) -> float:
    """``sum_powers`` from class ``c`` on, with its groups' ``maxima`` unless that is None."""
    if maxima is None:
        return sum_powers(x, first, count, options, shift)
    return sum_tracked(x, first, count, options.scale, options.cap, shift, maxima, c)


@inlined
def _sum_blocks(
    x: Any, first: int, count: int, start: int, options: Any, shift: float, before: float,
    maxima: Any, c: int,
) -> tuple[float, int]:  # fmt: skip
    """Add the sums of blocks from ``start`` on to ``before``, up to one that outgrows the shift.

    Returns the sum, and where that block begins, or ``count``.
    """
    total = before
    for begin in range(start, count, BLOCK):
        size = min(BLOCK, count - begin)
        part = _sum_block(x, first + begin, size, options, shift, maxima, c + begin)
        if not part < BLOCK_LIMIT:
            return total, begin
        total += part
    return total, count


@called
def _sum_plain_blocks(
    x: Any, first: int, count: int, start: int, scale: float, cap: Any, shift: float, before: float
) -> tuple[float, int]:
    """``_sum_blocks`` without maxima.

    A function of its own, whose loops have all registers: inlined, a row of 32000 classes took 4 %
    more in float32, and 2 % more in bfloat16 (EPYC, family 25, model 17, one thread).
    """
    never_inlined()
    options = Scale(1.0, scale, cap)
    return _sum_blocks(x, first, count, start, options, shift, before, None, 0)


@inlined
def sum_segment(
    x: Any, first: int, count: int, options: Any, maxima: Any, c: int
) -> tuple[float, float]:
    """``(total, shift)`` with sum(2**(x * scale)) = total * 2**shift, over one segment.

    It begins with class ``c``. The total is NaN where a block has no sum below the limit.
    """
    shift = shift_for(x, first, min(count, GUESS), options)
    total, done = 0.0, 0
    while done < count:
        if maxima is None:
            scale, cap = options.scale, options.cap
            total, done = _sum_plain_blocks(x, first, count, done, scale, cap, shift, total)
        else:
            total, done = _sum_blocks(x, first, count, done, options, shift, total, maxima, c)
        if done < count:
            exact = shift_for(x, first + done, min(BLOCK, count - done), options)
            if exact == shift:
                return math.nan, shift
            total *= 2.0 ** (shift - exact)
            shift = exact
    return total, shift


@inlined
def merge(
    total: float, shift: float, other_total: float, other_shift: float
) -> tuple[float, float]:
    """Sum of two ``(total, shift)``: exact but for the one addition."""
    if other_shift > shift:
        return total * 2.0 ** (shift - other_shift) + other_total, other_shift
    return total + other_total * 2.0 ** (other_shift - shift), shift


@inlined
def sum_part(
    x: Any, first: int, classes: int, part: int, options: Any, likeliest: Any, worker: int
) -> tuple[float, float]:
    """``sum_segment`` of the row's segment number ``part``."""
    start = part * SEGMENT
    size = min(SEGMENT, classes - start)
    if likeliest is None:
        return sum_segment(x, first + start, size, options, None, start)
    return sum_segment(x, first + start, size, options, likeliest.maxima[worker], start)


@inlined
def sum_row(
    x: Any, first: int, classes: int, options: Any, position: int, likeliest: Any, worker: int
) -> tuple[float, float]:
    """``(total, shift)`` of a whole row; a NaN total asks for ``careful``.

    Segments come from ``options.segments``, where ``segments_kernel`` filled it.
    """
    parts = (classes + SEGMENT - 1) // SEGMENT
    total, shift = 0.0, -LARGEST_SHIFT
    for part in range(parts):
        if options.segments.size:
            known = options.segments[position * parts + part]
            other, other_shift = known[0], known[1]
        else:
            other, other_shift = sum_part(x, first, classes, part, options, likeliest, worker)
        total, shift = merge(total, shift, other, other_shift)
    if abs(shift) == LARGEST_SHIFT:
        total = math.nan
    return total, shift


@inlined
def sum_weighted(x: Any, first: int, classes: int, shift: float, options: Any) -> float:
    """sum(weight * (x * scale - shift)), as label smoothing needs it; the row is in cache."""
    total = 0.0
    scales, shifts = constant(x, options.scale), constant(x, -shift)
    weight, zero = options.lane_weight, constant(x, 0.0)
    for start in range(0, classes, BLOCK):
        part = zero
        stop = min(start + BLOCK, classes)
        for i in range(start, stop, width(x)):
            t = fma(read_first(x, first + i, stop - i, zero, options.cap), scales, shifts)
            part = fma(load_first(weight, i, stop - i, zero), t, part)
        total += sum_across(part)
    return total


@inlined
def sum_expected(
    x: Any, first: int, classes: int, shift: float, soft: Any, soft_first: int, options: Any
) -> float:
    """sum(probability * 2**(x * scale - shift)), for the focal factor of class probabilities."""
    scales, shifts = constant(x, options.scale), constant(x, -shift)
    total, zero, lowest = 0.0, constant(x, 0.0), constant(x, -math.inf)
    for start in range(0, classes, BLOCK):
        part, stop = zero, min(start + BLOCK, classes)
        for i in range(start, stop, width(x)):
            t = fma(read_first(x, first + i, stop - i, lowest, options.cap), scales, shifts)
            part = fma(load_first(soft, soft_first + i, stop - i, zero), exp2(t), part)
        total += sum_across(part)
    return total


@inlined
def sum_soft(
    x: Any, first: int, classes: int, shift: float, soft: Any, soft_first: int, options: Any
) -> tuple[float, float, float, float]:
    """``(mass, smooth, shares, least)``: sum(q) and sum(q * (x * scale - shift)), where
    q = weight * (keep * probability + spread); the sum of the probabilities, and the least of them
    and 0.

    A class whose smoothed probability is 0 counts as 0 even at -inf; PyTorch gives NaN there.
    """
    mass, total, shares = 0.0, 0.0, 0.0
    scales, shifts = constant(x, options.scale), constant(x, -shift)
    keeps, spreads = constant(x, options.keep), constant(x, options.spread)
    weight, zero = options.lane_weight, constant(x, 0.0)
    least, plain = zero, options.weight.size == 0 and options.spread == 0.0
    for start in range(0, classes, BLOCK):
        mass_part, part, shares_part = zero, zero, zero
        stop = min(start + BLOCK, classes)
        if plain:  # q is the probability itself: this loop takes 0.8 of the other's time
            for i in range(start, stop, width(x)):
                t = fma(read_first(x, first + i, stop - i, zero, options.cap), scales, shifts)
                q = load_first(soft, soft_first + i, stop - i, zero)
                mass_part = mass_part + q
                least = minimum(q, least)
                part = part + where_equal(q, zero, zero, q * t)
            shares_part = mass_part
        else:
            for i in range(start, stop, width(x)):
                t = fma(read_first(x, first + i, stop - i, zero, options.cap), scales, shifts)
                given = load_first(soft, soft_first + i, stop - i, zero)
                shares_part = shares_part + given
                least = minimum(given, least)
                p = fma(given, keeps, spreads)
                q = p * load_first(weight, i, stop - i, zero)
                mass_part = mass_part + q
                part = part + where_equal(p, zero, zero, q * t)
        mass += sum_across(mass_part)
        total += sum_across(part)
        shares += sum_across(shares_part)
    return mass, total, shares, float(min_across(least))
