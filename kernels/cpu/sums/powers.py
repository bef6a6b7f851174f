"""Sums of the powers of contiguous logits, with the maxima of their groups or without."""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined, never_inlined
from kernels.cpu.logit import capped, read_first, read_two
from kernels.cpu.sums.maxima import group_size, keep_block
from kernels.simd import (
    ahead,
    constant,
    exp2,
    exp2_four,
    fma,
    load_first_compared,
    load_two,
    loads_after,
    lowest,
    maximum,
    prefetch,
    prefetch_turn,
    raised,
    span,
    spread,
    store,
    sum_across,
    turn,
    width,
)


@inlined
def _add_four(
    one: tuple[Any, Any], other: tuple[Any, Any], scales: Any, shifts: Any, even: Any, odd: Any
) -> tuple[Any, Any]:
    """Add the powers of four registers of logits to ``even`` and ``odd``, in turns."""
    a, b = fma(one[0], scales, shifts), fma(one[1], scales, shifts)
    c, d = fma(other[0], scales, shifts), fma(other[1], scales, shifts)
    p, q, r, s = exp2_four(a, b, c, d)
    return (even + p) + r, (odd + q) + s


@inlined
def _capped_two(x: Any, two: tuple[Any, Any], cap: Any) -> tuple[Any, Any]:
    return capped(x, two[0], cap), capped(x, two[1], cap)


@inlined
def sum_powers(x: Any, first: int, count: int, options: Any, shift: float) -> float:
    """sum(2**(x * scale - shift)) over ``count`` elements."""
    step, cap = width(x), options.cap
    scales, shifts = constant(x, options.scale), constant(x, -shift)
    even, odd = constant(x, 0.0), constant(x, 0.0)
    turns = count // turn(x) * turn(x)
    for i in range(0, turns, turn(x)):
        prefetch_turn(x, first + i)
        for k in range(first + i, first + i + turn(x), 4 * step):
            loads_after()
            one, other = read_two(x, k, cap), read_two(x, k + 2 * step, cap)
            even, odd = _add_four(one, other, scales, shifts, even, odd)
    whole = count // (2 * step) * (2 * step)
    for i in range(turns, whole, 2 * step):
        prefetch(x, first + i + ahead(x))
        prefetch(x, first + i + step + ahead(x))
        one = read_two(x, first + i, cap)
        even = even + exp2(fma(one[0], scales, shifts))
        odd = odd + exp2(fma(one[1], scales, shifts))
    nothing = constant(x, -math.inf)
    for i in range(whole, count, step):
        t = fma(read_first(x, first + i, count - i, nothing, cap), scales, shifts)
        even = even + exp2(t)
    return float(sum_across(even + odd))


@called
def sum_tracked(
    x: Any, first: int, count: int, scale: float, cap: Any, shift: float, maxima: Any, c: int
) -> float:
    """``sum_powers`` of the classes from ``c`` on, a block at most; the same bits.

    Writes the maxima of its groups, and behind those of all groups that of the block, which is made
    of them: kept in the loop, it took a register more than there are. A function of its own for the
    same reason: inlined, a float32 row of 32000 classes took 6 % more, and one of bfloat16 2 %.
    """
    never_inlined()
    step, size = width(x), group_size(x)
    scales, shifts = constant(x, scale), constant(x, -shift)
    even, odd = constant(x, 0.0), constant(x, 0.0)
    whole, group = count // size * size, c // size * step
    for start in range(first, first + whole, size):
        prefetch_turn(x, start)
        largest = spread(x, lowest(x))
        for k in range(start, start + size, 4 * step):
            loads_after()
            one, other = load_two(x, k), load_two(x, k + 2 * step)
            largest = raised(x, k + 2 * step, other, raised(x, k, one, largest))
            one, other = _capped_two(x, one, cap), _capped_two(x, other, cap)
            # Here, not after the loop: LLVM would put the maxima off, and sums on the stack.
            store(maxima, group, largest)
            even, odd = _add_four(one, other, scales, shifts, even, odd)
        group += step
    if whole < count:
        largest, pairs = spread(x, lowest(x)), count // (2 * step) * (2 * step)
        for i in range(whole, pairs, 2 * step):
            one = load_two(x, first + i)
            largest = raised(x, first + i, one, largest)
            one = _capped_two(x, one, cap)
            even = even + exp2(fma(one[0], scales, shifts))
            odd = odd + exp2(fma(one[1], scales, shifts))
        nothing = constant(x, -math.inf)
        for i in range(pairs, count, step):
            t = fma(read_first(x, first + i, count - i, nothing, cap), scales, shifts)
            even = even + exp2(t)
        for i in range(pairs, count, span(x)):
            largest = maximum(load_first_compared(x, first + i, count - i), largest)
        store(maxima, group, largest)
    keep_block(x, maxima, c, count)
    return float(sum_across(even + odd))
