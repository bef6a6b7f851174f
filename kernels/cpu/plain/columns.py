"""Columns of ``plain``: a register holds one class of 16 neighbouring positions.

Planes of fewer neighbours than that are copied to columns.
"""

from __future__ import annotations

from typing import Any

from kernels.compiled import inlined
from kernels.cpu.plain.scratch import WIDTH
from kernels.plan import place
from kernels.simd import constant, load_first, store


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
