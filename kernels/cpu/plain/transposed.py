"""Sums of ``plain``'s rows of few classes: 16 rows at a time are transposed, a register a class.

While the powers of 16 rows are added up, the labels' logits and the maxima of the next 16 are
found, and the 16 after these transposed: each of the three waits for the one before, and a
processor does not look that far ahead for other work. Memory is read at an even pace, too:
1,000,000 rows of 10 classes took 3.7 ms, and 4.5 where a tile was transposed before its sums
(Zen 4, one thread).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels.compiled import called, inlined, never_inlined
from kernels.cpu.plain.planes import HIGHEST
from kernels.cpu.plain.scratch import COLUMNS, LABEL, MINUS, TOTAL, VALUE, WIDTH
from kernels.plan import place
from kernels.simd import (
    BY_L2,
    constant,
    exp2,
    fma,
    load,
    maximum,
    minimum,
    nearest_product,
    prefetch,
    prefetch_at,
    splat,
    store,
    transpose,
    transpose_eights,
    transpose_fours,
    unknown,
    where_equal,
)

ZERO, ONE = np.float32(0), np.float32(1)
# Rows from a sum to its prefetch: on two threads of a Zen 4, 1,000,000 rows of 10 classes took 2.2
# ms with none, 1.9 with 128, 512 and 1024, and 2.05 with more of them, to L1, 48 rows ahead.
AHEAD = 512 if BY_L2 else 256


@inlined
def _in_reach(logits: Any, hi: int) -> int:
    """Position before ``hi`` up to which rows are evenly apart, and not read past the array.

    Eights and fours of classes are read past the last class.
    """
    if logits.inner_size != 1:
        return 0
    read = logits.classes // 4 * 4 + 4
    return min(hi, (logits.data.size - read) // max(logits.outer_stride, 1) + 1)


@inlined
def _transpose(
    logits: Any, position: int, hi: int, in_reach: int, starts: Any, columns: Any, at: int
) -> None:
    """Write 16 rows from ``position`` on to columns from ``at`` on; those from ``hi`` on repeat."""
    x, classes, apart = logits.data, logits.classes, logits.outer_stride
    if position + WIDTH <= in_reach:
        first, c = unknown(position * apart), 0
        while classes - c > 4:
            transpose_eights(x, first + c, apart, columns, at + c * WIDTH, WIDTH)
            c += 8
        if c < classes:
            transpose_fours(x, first + c, apart, columns, at + c * WIDTH, WIDTH)
    else:
        for r in range(WIDTH):
            starts[r] = place(logits, min(position + r, hi - 1))
        transpose(x, starts, 0, classes, columns, at, WIDTH)


@inlined
def _find(columns: Any, at: int, classes: int, labels: Any, down: Any) -> Any:
    """Logits of the ``labels`` of 16 rows, and the rows' negated shifts."""
    value, number, largest = splat(ZERO), splat(ZERO), constant(columns, -math.inf)
    for c in range(classes):
        logit = load(columns, at + c * WIDTH)
        value = where_equal(labels, number, logit, value)
        largest = maximum(logit, largest)
        number = number + splat(ONE)
    return value, minimum(nearest_product(largest, down), splat(HIGHEST))


@called
def sum_transposed(
    logits: Any, lo: int, count: int, starts: Any, columns: Any, rows: Any, scale: Any, labels: Any
) -> None:
    """Write VALUE, MINUS and TOTAL of ``count`` rows from ``lo`` on.

    ``labels`` are address and size of those to prefetch.
    """
    never_inlined()
    address, each = labels
    classes, hi, in_reach = logits.classes, lo + count, _in_reach(logits, lo + count)
    scales, down = splat(scale), splat(-scale)
    sums, found, transposed = 0, COLUMNS, 2 * COLUMNS
    value, shift = splat(ZERO), splat(ZERO)
    for i in range(-2 * WIDTH, count, WIDTH):
        later_value, later_shift = value, shift
        if -WIDTH <= i < count - WIDTH:
            picked = load(rows[LABEL], i + WIDTH)
            later_value, later_shift = _find(columns, found, classes, picked, down)
        if i >= 0:
            after = place(logits, lo + i + AHEAD)
            for c in range(classes):
                prefetch(logits.data, after + c * WIDTH)
            prefetch_at(address + i * each)
            prefetch_at(address + (i + WIDTH // 2) * each)
            total = splat(ZERO)
            for c in range(classes):
                total = total + exp2(fma(load(columns, sums + c * WIDTH), scales, shift))
            store(rows[VALUE], i, value)
            store(rows[MINUS], i, shift)
            store(rows[TOTAL], i, total)
        if i + 2 * WIDTH < count:
            _transpose(logits, lo + i + 2 * WIDTH, hi, in_reach, starts, columns, transposed)
        value, shift = later_value, later_shift
        sums, found, transposed = found, transposed, sums
