"""Columns of ``plain``: a register holds one class of 16 neighbouring positions.

Rows of few classes are transposed to columns, and planes of fewer neighbours than that copied.
"""

from __future__ import annotations

from typing import Any

from kernels.compiled import inlined
from kernels.cpu.plain_scratch import WIDTH
from kernels.plan import place
from kernels.simd import constant, load_first, store, transpose


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
