"""Sums over few contiguous classes: as many rows at a time as a register has lanes.

A row alone would pay for its horizontal maximum and sum, its logarithm and its scalars as much
as for its exponentials. Here the shift is guessed from each row's first class, in SIMD, and the
rows' sums are folded together into one register. Rows whose guess was poor go to ``rows``.
"""

from __future__ import annotations

import math
from typing import Any

from numba import types

from kernels.compiled import by_type, inlined
from kernels.cpu.logit import capped, read, read_first
from kernels.cpu.sums.planes import held_shift, keep
from kernels.cpu.tile import MINUS, TOTAL, VALUE
from kernels.formula import FAR, LARGEST_SHIFT
from kernels.plan import place
from kernels.simd import (
    ahead,
    constant,
    element,
    exp2,
    fma,
    load,
    maximum,
    pair_sums,
    prefetch,
    splat,
    store,
    width,
)

# Above this many classes the first one is too poor a guess, and the overhead too small.
LARGEST = 256
# t up to 16 costs at most 3.3e-7: half an ulp of it, times ln 2.
LIMIT = 2.0**16
# Rows from a load to its prefetch, a few more than a register has lanes.
AHEAD = 20


@inlined
def _row(x: Any, first: int, classes: int, options: Any, minus: Any) -> Any:
    """sum(2**(x * scale + minus)), still spread over the lanes."""
    step, cap, lowest = width(x), options.cap, constant(x, -math.inf)
    scales, shift = constant(x, options.scale), splat(minus)
    whole = (classes - 1) // step * step
    rest = read_first(x, first + whole, classes - whole, lowest, cap)
    part = exp2(fma(rest, scales, shift))
    # The next rows' first and labelled classes are read before all others.
    far = max(ahead(x), AHEAD * classes)
    prefetch(x, first + whole + far)
    for i in range(0, whole, step):
        prefetch(x, first + i + far)
        part = part + exp2(fma(read(x, first + i, cap), scales, shift))
    return part


@inlined
def _four(logits: Any, first_position: int, last: int, options: Any, minus: Any, at: int) -> Any:
    """Sums of four rows, folded together; rows past ``last`` repeat it."""
    x, classes = logits.data, logits.classes
    a = place(logits, min(first_position, last))
    b = place(logits, min(first_position + 1, last))
    c = place(logits, min(first_position + 2, last))
    d = place(logits, min(first_position + 3, last))
    low = pair_sums(
        _row(x, a, classes, options, minus[at]), _row(x, b, classes, options, minus[at + 1]), 1
    )
    high = pair_sums(
        _row(x, c, classes, options, minus[at + 2]), _row(x, d, classes, options, minus[at + 3]), 1
    )
    return pair_sums(low, high, 2)


@by_type
def _abreast(logits: Any, position: Any, last: Any, options: Any, minus: Any) -> Any:
    """Sums of as many rows as a register has lanes, a row a lane."""
    if minus.dtype == types.float64:

        def eight(logits: Any, position: Any, last: Any, options: Any, minus: Any) -> Any:
            low = _four(logits, position, last, options, minus, 0)
            high = _four(logits, position + 4, last, options, minus, 4)
            return pair_sums(low, high, 4)

        return eight

    def sixteen(logits: Any, position: Any, last: Any, options: Any, minus: Any) -> Any:
        a = _four(logits, position, last, options, minus, 0)
        b = _four(logits, position + 4, last, options, minus, 4)
        low = pair_sums(a, b, 4)
        c = _four(logits, position + 8, last, options, minus, 8)
        d = _four(logits, position + 12, last, options, minus, 12)
        return pair_sums(low, pair_sums(c, d, 4), 8)

    return sixteen


@inlined
def sum_short_rows(
    logits: Any, options: Any, lo: int, count: int, label: Any, lanes: Any, scratch: Any,
    column: int,
) -> bool:  # fmt: skip
    """Write TOTAL, MINUS and VALUE of ``count`` rows from ``lo`` on; True if all are reliable."""
    x, last, cap = logits.data, lo + count - 1, options.cap
    heads, values, minus = lanes[0], lanes[1], lanes[2]
    totals, shifts = scratch[TOTAL, column:], scratch[MINUS, column:]
    picked = scratch[VALUE, column:]
    for start in range(0, count, width(x)):
        for r in range(width(x)):
            at = min(start + r, count - 1)
            first = place(logits, lo + at)
            heads[r] = element(x, first)
            values[r] = element(x, first + max(label[at], 0))
        value = capped(x, load(values, 0), cap)
        largest = maximum(capped(x, load(heads, 0), cap), value)
        shift = held_shift(x, largest, options.scale)
        store(minus, 0, shift)
        keep(totals, start, _abreast(logits, lo + start, last, options, minus))
        keep(shifts, start, shift)
        keep(picked, start, value)
    good, scale = True, options.scale
    for r in range(count):
        good &= (totals[r] < LIMIT) & (abs(shifts[r]) < LARGEST_SHIFT) & (picked[r] * scale > -FAR)
    return good
