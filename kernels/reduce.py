"""Ordered float64 reductions: a stream, a set of shards and one big array give the same bits.

Values are added within blocks of ``BLOCK`` positions, counted from position 0, in the order of
``_block_sum``; then the blocks' sums, from left to right. That order is a property of the data
alone, so the result does not depend on threads, on chunks (which end at a block's end) or on the
format. All sums are times ``SCALE``, a power of two, and so exact: a mean's sum may be larger than
its type holds, where the mean is not.
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
    """Writes the (loss, weight) sums of each block of ``count`` values to ``sums[first:]``."""
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        sums[first + start // BLOCK, 0] = _block_sum(losses, start, size)
        sums[first + start // BLOCK, 1] = _block_sum(weights, start, size)


@kernel
def add_blocks(sums: Float64s) -> tuple[float, float]:
    """The blocks' (loss, weight) sums, added from first to last: SCALE times those of all."""
    loss, weight = 0.0, 0.0
    for i in range(sums.shape[0]):
        loss += sums[i, 0]
        weight += sums[i, 1]
    return loss, weight


def sum_all_blocks(values: Float64s) -> Float64s:
    """The block sums of ``values``, rows of losses and weights, as ``sum_blocks`` makes them."""
    losses, weights = np.ascontiguousarray(values)
    sums = np.empty((-(-losses.size // BLOCK), 2))
    _sum_blocks(losses, weights, sums)
    return sums


@kernel
def _sum_blocks(losses: Any, weights: Any, sums: Any) -> None:
    sum_blocks(losses, weights, losses.size, sums, 0)
