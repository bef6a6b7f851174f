"""Columns of ``plain``: a register holds one class of 16 neighbouring positions.

Rows of few classes are transposed to columns, and planes of fewer neighbours than that copied.
"""

from __future__ import annotations

from typing import Any

from kernels.compiled import inlined
from kernels.cpu.plain.scratch import WIDTH
from kernels.plan import place
from kernels.simd import (
    constant,
    load_first,
    store,
    transpose,
    transpose_eights,
    transpose_fours,
)


@inlined
def run_of(logits: Any, position: int, count: int) -> int:
    """Number of positions, of ``count`` from ``position`` on, that are neighbours in memory."""
    return min(count, logits.inner_size - position % logits.inner_size)


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
    x, classes, apart, done = logits.data, logits.classes, logits.outer_stride, 0
    if logits.inner_size == 1:
        # Eights and fours read past the last class, but not past the array.
        in_reach = (x.size - classes // 4 * 4 - 4) // max(apart, 1) + 1
        done = max(min(count, in_reach - lo), 0) // WIDTH * WIDTH
        for i in range(0, done, WIDTH):
            first, c = (lo + i) * apart, 0
            while classes - c > 4:
                transpose_eights(x, first + c, apart, columns, c * stride + i, stride)
                c += 8
            if c < classes:
                transpose_fours(x, first + c, apart, columns, c * stride + i, stride)
    for i in range(done, count, WIDTH):
        for r in range(WIDTH):
            starts[r] = place(logits, min(lo + i + r, lo + count - 1))
        transpose(x, starts, 0, classes, columns, i, stride)
