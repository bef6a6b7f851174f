"""Sums over strided classes of contiguous positions (NCHW).

Registers of neighbouring positions walk down the classes together. The arithmetic is that of
``rows``: integer shifts, guessed from the first classes; a group whose guess was poor walks down
again with its exact maxima.
"""

from __future__ import annotations

import math
from typing import Any

from numba import types

from kernels.compiled import by_type, inlined
from kernels.cpu.logit import read, read_first
from kernels.formula import LARGEST_SHIFT
from kernels.simd import (
    constant,
    exp2,
    fma,
    load,
    load_first,
    maximum,
    minimum,
    narrow,
    nearest,
    prefetch,
    store,
    where_equal,
    widen_high,
    widen_low,
    width,
)

# Registers that walk together: their four exponentials hide each other's latency.
ABREAST = 4
GUESS = 4
# Elements from a load to its prefetch: two groups on, which with 19 classes is 38 KB of lines. At
# 512 elements L1 lost them before their use (7.4 ms against 6.5), at 64 they came late.
AHEAD = 128
# Classes summed in float32 before the sum moves on in float64, for its accuracy.
CLASS_BLOCK = 32


@by_type
def accumulate(values: Any, at: Any, lanes: Any) -> Any:
    """Add ``lanes`` to the float64 ``values`` from ``at`` on."""
    if lanes.scalar == types.float64:

        def accumulate_float64(values: Any, at: Any, lanes: Any) -> None:
            store(values, at, load(values, at) + lanes)

        return accumulate_float64

    def accumulate_float32(values: Any, at: Any, lanes: Any) -> None:
        store(values, at, load(values, at) + widen_low(lanes))
        store(values, at + 8, load(values, at + 8) + widen_high(lanes))

    return accumulate_float32


@by_type
def keep(values: Any, at: Any, lanes: Any) -> Any:
    """Store ``lanes`` to the float64 ``values`` from ``at`` on."""
    if lanes.scalar == types.float64:

        def keep_float64(values: Any, at: Any, lanes: Any) -> None:
            store(values, at, lanes)

        return keep_float64

    def keep_float32(values: Any, at: Any, lanes: Any) -> None:
        store(values, at, widen_low(lanes))
        store(values, at + 8, widen_high(lanes))

    return keep_float32


@inlined
def held_shift(x: Any, largest: Any, scale: float) -> Any:
    """Negated integer shift in each lane; see ``rows.shift_for``."""
    held = minimum(constant(x, LARGEST_SHIFT), largest * constant(x, scale))
    return nearest(constant(x, 0.0) - maximum(held, constant(x, -LARGEST_SHIFT)))


@inlined
def sum_abreast(logits: Any, first: int, guess: int, options: Any, totals: Any, minus: Any) -> None:
    """Add sum(2**(x * scale + minus)) to ``totals``, and write the negated shifts to ``minus``
    (both float64), for ABREAST registers of positions from ``first`` on; the first ``guess``
    classes set the shifts.
    """
    x, stride, classes = logits.data, logits.class_stride, logits.classes
    w, scale, cap = width(x), options.scale, options.cap
    m0 = constant(x, -math.inf)
    m1, m2, m3 = m0, m0, m0
    for c in range(guess):
        at = first + c * stride
        m0 = maximum(read(x, at, cap), m0)
        m1 = maximum(read(x, at + w, cap), m1)
        m2 = maximum(read(x, at + 2 * w, cap), m2)
        m3 = maximum(read(x, at + 3 * w, cap), m3)
    m0, m1 = held_shift(x, m0, scale), held_shift(x, m1, scale)
    m2, m3 = held_shift(x, m2, scale), held_shift(x, m3, scale)
    keep(minus, 0, m0)
    keep(minus, w, m1)
    keep(minus, 2 * w, m2)
    keep(minus, 3 * w, m3)
    scales, zero = constant(x, scale), constant(x, 0.0)
    for start in range(0, classes, CLASS_BLOCK):
        s0, s1, s2, s3 = zero, zero, zero, zero
        for c in range(start, min(start + CLASS_BLOCK, classes)):
            at = first + c * stride
            prefetch(x, at + AHEAD)
            prefetch(x, at + w + AHEAD)
            prefetch(x, at + 2 * w + AHEAD)
            prefetch(x, at + 3 * w + AHEAD)
            s0 = s0 + exp2(fma(read(x, at, cap), scales, m0))
            s1 = s1 + exp2(fma(read(x, at + w, cap), scales, m1))
            s2 = s2 + exp2(fma(read(x, at + 2 * w, cap), scales, m2))
            s3 = s3 + exp2(fma(read(x, at + 3 * w, cap), scales, m3))
        accumulate(totals, 0, s0)
        accumulate(totals, w, s1)
        accumulate(totals, 2 * w, s2)
        accumulate(totals, 3 * w, s3)


@inlined
def sum_few(
    logits: Any, first: int, count: int, guess: int, options: Any, totals: Any, minus: Any
) -> None:
    """``sum_abreast`` for ``count`` positions of a single register."""
    x, stride, classes = logits.data, logits.class_stride, logits.classes
    zero, largest, scale = constant(x, 0.0), constant(x, -math.inf), options.scale
    for c in range(guess):
        at = first + c * stride
        largest = maximum(read_first(x, at, count, zero, options.cap), largest)
    shift = held_shift(x, largest, scale)
    keep(minus, 0, shift)
    for start in range(0, classes, CLASS_BLOCK):
        part = zero
        for c in range(start, min(start + CLASS_BLOCK, classes)):
            values = read_first(x, first + c * stride, count, zero, options.cap)
            part = part + exp2(fma(values, constant(x, scale), shift))
        accumulate(totals, 0, part)


@by_type
def narrowed(values: Any, like: Any) -> Any:
    """Convert the first float64 ``values`` to a register of the type ``like`` is computed in."""
    if like.dtype == types.float64:

        def narrowed_float64(values: Any, like: Any) -> Any:
            return load(values, 0)

        return narrowed_float64

    def narrowed_float32(values: Any, like: Any) -> Any:
        return narrow(load(values, 0), load(values, 8))

    return narrowed_float32


@inlined
def weigh_few(logits: Any, first: int, count: int, minus: Any, options: Any, smooths: Any) -> None:
    """Add sum(weight * (x * scale + minus)) to ``smooths``; see ``rows.sum_weighted``."""
    x, stride, classes = logits.data, logits.class_stride, logits.classes
    scales, shift, zero = constant(x, options.scale), narrowed(minus, x), constant(x, 0.0)
    for start in range(0, classes, CLASS_BLOCK):
        part = zero
        for c in range(start, min(start + CLASS_BLOCK, classes)):
            values = read_first(x, first + c * stride, count, zero, options.cap)
            t = fma(values, scales, shift)
            part = fma(constant(x, options.lane_weight[c]), t, part)
        accumulate(smooths, 0, part)


@inlined
def expect_few(
    logits: Any, first: int, soft: Any, soft_first: int, count: int, minus: Any, options: Any,
    expected: Any,
) -> None:  # fmt: skip
    """Add ``rows.sum_expected`` of ``count`` positions to ``expected``."""
    x, stride, classes = logits.data, logits.class_stride, logits.classes
    scales, shift, zero = constant(x, options.scale), narrowed(minus, x), constant(x, 0.0)
    for start in range(0, classes, CLASS_BLOCK):
        part = zero
        for c in range(start, min(start + CLASS_BLOCK, classes)):
            values = read_first(x, first + c * stride, count, zero, options.cap)
            given = load_first(soft.data, soft_first + c * soft.class_stride, count, zero)
            part = fma(given, exp2(fma(values, scales, shift)), part)
        accumulate(expected, 0, part)


@inlined
def soften_few(
    logits: Any, first: int, soft: Any, soft_first: int, count: int, minus: Any, options: Any,
    masses: Any, smooths: Any, shares: Any, least: Any,
) -> None:  # fmt: skip
    """Add the sums of ``rows.sum_soft`` to ``masses``, ``smooths`` and ``shares``, and write its
    minimum to ``least``.
    """
    x, stride, classes = logits.data, logits.class_stride, logits.classes
    scales, shift, zero = constant(x, options.scale), narrowed(minus, x), constant(x, 0.0)
    keeps, spreads = constant(x, options.keep), constant(x, options.spread)
    smallest = zero
    for start in range(0, classes, CLASS_BLOCK):
        mass, part, share = zero, zero, zero
        for c in range(start, min(start + CLASS_BLOCK, classes)):
            values = read_first(x, first + c * stride, count, zero, options.cap)
            t = fma(values, scales, shift)
            at = soft_first + c * soft.class_stride
            given = load_first(soft.data, at, count, zero)
            share = share + given
            smallest = minimum(given, smallest)
            p = fma(given, keeps, spreads)
            q = p * constant(x, options.lane_weight[c])
            mass = mass + q
            part = part + where_equal(p, zero, zero, q * t)
        accumulate(masses, 0, mass)
        accumulate(smooths, 0, part)
        accumulate(shares, 0, share)
    keep(least, 0, smallest)
