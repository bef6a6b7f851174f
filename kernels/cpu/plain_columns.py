"""Sums of ``plain``'s columns: a register holds one class of 16 neighbouring positions.

Planes are copied to columns, since lines that lie a power of two apart evict each other from cache;
rows of few classes are transposed. Then a tile's columns are read twice, from L1.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import inlined
from kernels.cpu.plain_scratch import LABEL, MINUS, TOTAL, VALUE, WIDTH
from kernels.cpu.planes import CLASS_BLOCK, held_shift
from kernels.plan import place
from kernels.reduce import BLOCK
from kernels.simd import (
    constant,
    exp2,
    fma,
    load,
    load_first,
    maximum,
    prefetch,
    splat,
    store,
    transpose,
    where_equal,
)

# Runs of neighbours, a class each, from a load to its prefetch.
RUNS_AHEAD = 4


@inlined
def copy_planes(logits: Any, lo: int, count: int, columns: Any, stride: int) -> None:
    """Copy the classes of ``count`` positions from ``lo`` on to columns of ``stride``."""
    x, done, zero = logits.data, 0, constant(columns, 0.0)
    while done < count:
        run = min(count - done, logits.inner_size - (lo + done) % logits.inner_size)
        first, whole = place(logits, lo + done), run // WIDTH * WIDTH
        for c in range(logits.classes):
            at, to = first + c * logits.class_stride, c * stride + done
            later = c + RUNS_AHEAD
            far = first + later % logits.classes * logits.class_stride
            far += later // logits.classes * run
            for i in range(0, whole, WIDTH):
                prefetch(x, far + i)
                store(columns, to + i, load(x, at + i))
            if whole < run:
                store(columns, to + whole, load_first(x, at + whole, run - whole, zero))
        done += run


@inlined
def transpose_rows(
    logits: Any, lo: int, count: int, starts: Any, columns: Any, stride: int
) -> None:
    """Write ``count`` rows from ``lo`` on, of few classes, to columns of ``stride``."""
    x, classes = logits.data, logits.classes
    for i in range(0, count, WIDTH):
        for r in range(WIDTH):
            starts[r] = place(logits, lo + min(i + r, count - 1))
        for c in range(0, classes, WIDTH):
            transpose(x, starts, c, min(classes - c, WIDTH), columns, c * stride + i, stride)


@inlined
def sum_columns(
    columns: Any, stride: int, logits: Any, lo: int, count: int, rows: Any, scale: Any
) -> None:
    """Write VALUE, MINUS and TOTAL of ``count`` positions from ``lo`` on, in ``columns``.

    Meanwhile the next tile's logits are prefetched: they are read when memory would be idle.
    """
    x, classes = logits.data, logits.classes
    scales, one, lowest = splat(scale), constant(columns, 1.0), constant(columns, -math.inf)
    zero = constant(columns, 0.0)
    by_class = BLOCK if logits.class_stride == 1 else logits.class_stride
    by_position = classes if logits.class_stride == 1 else 1
    after = place(logits, lo) + count * by_position
    for i in range(0, count, BLOCK):
        low, high = lowest, lowest
        for c in range(classes):
            low = maximum(load(columns, c * stride + i), low)
            high = maximum(load(columns, c * stride + i + WIDTH), high)
        low, high = held_shift(columns, low, scale), held_shift(columns, high, scale)
        label, other_label = load(rows[LABEL], i), load(rows[LABEL], i + WIDTH)
        total, other, value, other_value, number = zero, zero, zero, zero, zero
        for start in range(0, classes, CLASS_BLOCK):
            part, other_part = zero, zero
            for c in range(start, min(start + CLASS_BLOCK, classes)):
                prefetch(x, after + i * by_position + c * by_class)
                prefetch(x, after + i * by_position + c * by_class + WIDTH)
                a, b = load(columns, c * stride + i), load(columns, c * stride + i + WIDTH)
                part = part + exp2(fma(a, scales, low))
                other_part = other_part + exp2(fma(b, scales, high))
                value = where_equal(label, number, a, value)
                other_value = where_equal(other_label, number, b, other_value)
                number = number + one
            total, other = total + part, other + other_part
        store(rows[MINUS], i, low)
        store(rows[MINUS], i + WIDTH, high)
        store(rows[TOTAL], i, total)
        store(rows[TOTAL], i + WIDTH, other)
        store(rows[VALUE], i, value)
        store(rows[VALUE], i + WIDTH, other_value)
