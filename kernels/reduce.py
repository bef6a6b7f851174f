"""Ordered float64 reductions, which give the same bits for a stream and for one big array.

Values are added within blocks of ``BLOCK`` positions, counted from position 0, in the order of
``_block_sum``; then the blocks' sums, from first to last. That order depends on the data alone, so
the result does not depend on threads, on chunks (which end at a block's end) or on the format. All
sums are times ``SCALE``, a power of two, so exactly: the sum of a finite mean may be too large for
its type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.compiled import inlined, kernel
from kernels.simd import load, load_first, splat, sum_across

# Positions. Large enough that adding up the blocks of a million rows takes 1 % of reading them.
BLOCK = 32
# There are fewer positions than its inverse: no sum of finite losses is infinite.
SCALE = 2.0**-40
Float64s = np.ndarray[Any, np.dtype[np.float64]]


@inlined
def _block_sum(values: Any, start: int, count: int) -> float:
    """SCALE times the sum of ``count`` values, at most BLOCK, from ``start`` on.

    Eight sums of every eighth value, folded in halves: one after another they took 1 ns a value.
    """
    zero, scale = splat(0.0), splat(SCALE)
    if count == BLOCK:
        a = scale * load(values, start) + scale * load(values, start + 8)
        b = scale * load(values, start + 16) + scale * load(values, start + 24)
        return sum_across(a + b)
    a = scale * load_first(values, start, count, zero)
    a = a + scale * load_first(values, start + 8, count - 8, zero)
    b = scale * load_first(values, start + 16, count - 16, zero)
    b = b + scale * load_first(values, start + 24, count - 24, zero)
    return sum_across(a + b)


@inlined
def sum_blocks(losses: Any, weights: Any, count: int, sums: Any, first: int) -> None:
    """Write the (loss, weight) sums of each block of ``count`` values to ``sums[first:]``."""
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        sums[first + start // BLOCK, 0] = _block_sum(losses, start, size)
        sums[first + start // BLOCK, 1] = _block_sum(weights, start, size)


@kernel
def add_blocks(sums: Float64s) -> tuple[float, float]:
    """Add the blocks' (loss, weight) sums from first to last: SCALE times the sums of all."""
    loss, weight = 0.0, 0.0
    for i in range(sums.shape[0]):
        loss += sums[i, 0]
        weight += sums[i, 1]
    return loss, weight


def sum_all_blocks(values: Float64s) -> Float64s:
    """Block sums of ``values``, a row of losses and one of weights, by ``sum_blocks``."""
    losses, weights = np.ascontiguousarray(values)
    sums = np.empty((-(-losses.size // BLOCK), 2))
    _sum_blocks(losses, weights, sums)
    return sums


@kernel
def _sum_blocks(losses: Any, weights: Any, sums: Any) -> None:
    sum_blocks(losses, weights, losses.size, sums, 0)


@kernel
def sum_rows(values: Any, sums: Float64s) -> None:
    """Write the sum of each row of ``values``, in one dimension, added from the row's first on."""
    each = values.size // sums.size
    for row in range(sums.size):
        total = 0.0
        for i in range(row * each, (row + 1) * each):
            total += values[i]
        sums[row] = total
