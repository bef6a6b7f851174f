"""Sums of ``plain``'s planes: registers of neighbouring positions walk down the classes.

While the powers of one block of positions are summed from L1, the next block is read from memory
and copied to L1, and its maxima are taken: memory is never idle, and shifts are exact. The copy is
needed since lines that lie a power of two apart, as planes do, evict each other from cache.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import inlined
from kernels.cpu.plain_scratch import LABEL, MINUS, TOTAL, VALUE, WIDTH
from kernels.cpu.planes import CLASS_BLOCK
from kernels.plan import place
from kernels.reduce import BLOCK
from kernels.simd import (
    constant,
    exp2,
    fma,
    load,
    maximum,
    nearest,
    prefetch,
    splat,
    store,
    where_equal,
)

# Elements from a load to its prefetch: four blocks on.
AHEAD = 4 * BLOCK


@inlined
def run_of(logits: Any, position: int, count: int) -> int:
    """Number of positions, of ``count`` from ``position`` on, that are neighbours in memory."""
    return min(count, logits.inner_size - position % logits.inner_size)


@inlined
def runs_are_long(logits: Any, lo: int, count: int) -> bool:
    """Test whether every run of ``count`` positions from ``lo`` on fills a block."""
    first, inner = run_of(logits, lo, count), logits.inner_size
    last = (count - first) % inner
    return first >= BLOCK and inner >= BLOCK and (last == 0 or last >= BLOCK)


@inlined
def _sum_run(
    logits: Any, first: int, count: int, done: int, copies: Any, rows: Any, scale: Any
) -> None:
    """Write VALUE, MINUS and TOTAL from ``done`` on, of ``count`` neighbours at ``first``."""
    x, classes, by_class = logits.data, logits.classes, logits.class_stride
    minus, totals, values, labels = rows[MINUS], rows[TOTAL], rows[VALUE], rows[LABEL]
    scales, one, zero = splat(scale), constant(copies, 1.0), constant(copies, 0.0)
    largest, other_largest = constant(copies, -math.inf), constant(copies, -math.inf)
    mine, others = 0, classes * BLOCK
    for c in range(classes):
        a, b = load(x, first + c * by_class), load(x, first + c * by_class + WIDTH)
        store(copies, c * BLOCK, a)
        store(copies, c * BLOCK + WIDTH, b)
        largest, other_largest = maximum(a, largest), maximum(b, other_largest)
    # The last block may overlap the one before it: their values are the same.
    for start in range(0, count, BLOCK):
        i = done + min(start, count - BLOCK)
        after = first + min(start + BLOCK, count - BLOCK)
        low, high = nearest(zero - largest * scales), nearest(zero - other_largest * scales)
        store(minus, i, low)
        store(minus, i + WIDTH, high)
        label, other_label = load(labels, i), load(labels, i + WIDTH)
        largest, other_largest = constant(copies, -math.inf), constant(copies, -math.inf)
        value, other_value, total, other = zero, zero, zero, zero
        number = zero
        for block in range(0, classes, CLASS_BLOCK):
            part, other_part = zero, zero
            for c in range(block, min(block + CLASS_BLOCK, classes)):
                at, to = after + c * by_class, c * BLOCK
                prefetch(x, at + AHEAD)
                prefetch(x, at + AHEAD + WIDTH)
                a, b = load(copies, mine + to), load(copies, mine + to + WIDTH)
                part = part + exp2(fma(a, scales, low))
                other_part = other_part + exp2(fma(b, scales, high))
                value = where_equal(label, number, a, value)
                other_value = where_equal(other_label, number, b, other_value)
                number = number + one
                a, b = load(x, at), load(x, at + WIDTH)
                store(copies, others + to, a)
                store(copies, others + to + WIDTH, b)
                largest, other_largest = maximum(a, largest), maximum(b, other_largest)
            total, other = total + part, other + other_part
        mine, others = others, mine
        store(totals, i, total)
        store(totals, i + WIDTH, other)
        store(values, i, value)
        store(values, i + WIDTH, other_value)


@inlined
def sum_planes(logits: Any, lo: int, count: int, copies: Any, rows: Any, scale: Any) -> None:
    """Write VALUE, MINUS and TOTAL of ``count`` positions from ``lo`` on, all in long runs."""
    done = 0
    while done < count:
        run = run_of(logits, lo + done, count - done)
        _sum_run(logits, place(logits, lo + done), run, done, copies, rows, scale)
        done += run
