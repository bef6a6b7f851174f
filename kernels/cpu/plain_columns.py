"""Sums of ``plain``'s columns: a register holds one class of 16 neighbouring positions.

Rows of few classes are transposed to columns, and planes of fewer neighbours than a block copied.
Then a tile's columns are read twice, from L1.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import inlined
from kernels.cpu.plain_planes import run_of
from kernels.cpu.plain_scratch import LABEL, MINUS, TOTAL, VALUE, WIDTH
from kernels.cpu.planes import CLASS_BLOCK
from kernels.plan import place
from kernels.reduce import BLOCK
from kernels.simd import (
    constant,
    exp2,
    fma,
    load,
    load_first,
    maximum,
    nearest,
    prefetch,
    splat,
    store,
    transpose,
    where_equal,
)


@inlined
def copy_planes(logits: Any, lo: int, count: int, columns: Any, stride: int) -> None:
    """Copy the classes of ``count`` positions from ``lo`` on to columns of ``stride``."""
    x, done, zero = logits.data, 0, constant(columns, 0.0)
    while done < count:
        run = run_of(logits, lo + done, count - done)
        first = place(logits, lo + done)
        for c in range(logits.classes):
            at, to = first + c * logits.class_stride, c * stride + done
            for i in range(0, run, WIDTH):
                store(columns, to + i, load_first(x, at + i, run - i, zero))
        done += run


@inlined
def transpose_rows(
    logits: Any, lo: int, count: int, starts: Any, columns: Any, stride: int
) -> None:
    """Write ``count`` rows from ``lo`` on, of few classes, to columns of ``stride``."""
    x, classes = logits.data, logits.classes
    for i in range(0, count, WIDTH):
        last = lo + count - 1
        if logits.inner_size == 1:  # else LLVM makes 16 divisions of each 16 rows
            for r in range(WIDTH):
                starts[r] = min(lo + i + r, last) * logits.outer_stride
        else:
            for r in range(WIDTH):
                starts[r] = place(logits, min(lo + i + r, last))
        for c in range(0, classes, WIDTH):
            transpose(x, starts, c, min(classes - c, WIDTH), columns, c * stride + i, stride)


@inlined
def sum_columns(
    columns: Any, stride: int, logits: Any, lo: int, count: int, rows: Any, scale: Any
) -> None:
    """Write VALUE, MINUS and TOTAL of ``count`` positions from ``lo`` on, in ``columns``.

    Meanwhile the rows after them are prefetched: they are read when memory would be idle.
    """
    x, classes, minus, totals = logits.data, logits.classes, rows[MINUS], rows[TOTAL]
    labels, values, zero = rows[LABEL], rows[VALUE], constant(columns, 0.0)
    scales, one, lowest = splat(scale), constant(columns, 1.0), constant(columns, -math.inf)
    after = place(logits, lo) + count * classes
    # Two loops: processors look ahead over more positions in each.
    for i in range(0, count, WIDTH):
        largest = lowest
        for c in range(classes):
            largest = maximum(load(columns, c * stride + i), largest)
        store(minus, i, nearest(zero - largest * scales))
    for start in range(0, classes, CLASS_BLOCK):
        stop = min(start + CLASS_BLOCK, classes)
        for i in range(0, count, BLOCK):
            low, high = load(minus, i), load(minus, i + WIDTH)
            label, other_label = load(labels, i), load(labels, i + WIDTH)
            value, other_value = load(values, i), load(values, i + WIDTH)
            total, other, number = zero, zero, constant(columns, float(start))
            for c in range(start, stop):
                prefetch(x, after + i * classes + c * BLOCK)
                prefetch(x, after + i * classes + c * BLOCK + WIDTH)
                a, b = load(columns, c * stride + i), load(columns, c * stride + i + WIDTH)
                total = total + exp2(fma(a, scales, low))
                other = other + exp2(fma(b, scales, high))
                value = where_equal(label, number, a, value)
                other_value = where_equal(other_label, number, b, other_value)
                number = number + one
            if start:
                total, other = load(totals, i) + total, load(totals, i + WIDTH) + other
            store(totals, i, total)
            store(totals, i + WIDTH, other)
            store(values, i, value)
            store(values, i + WIDTH, other_value)
