"""Maxima of groups of a row's classes, taken while the row is summed, and what follows from them.

A group is 1 KiB of logits, or a block where no more than the largest is wanted; each lane keeps the
largest that it saw of the group. The maxima of a row are at most a sixteenth of it, so that its
largest logits are found without a second sweep: only groups whose maxima are large enough are read
again. Logits are compared without the soft cap, which keeps
their order, but may round two to one number. Maxima of 16-bit logits are known from 0 on, and are
-inf below (``simd.words``), until ``take_maxima`` reads the row once more.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import by_type, inlined
from kernels.cpu.logit import capped, read_first
from kernels.simd import (
    ahead,
    as_lanes,
    constant,
    exp2,
    fma,
    load,
    load_first,
    load_two,
    max_across,
    maximum,
    no_maximum,
    prefetch,
    raised,
    store,
    sum_across,
    width,
)

# Bytes in a group that ``top`` reads; classes in a block, which is that of ``rows`` in float32.
GROUP, BLOCK = 1024, 4096


@by_type
def group_size(x: Any) -> Any:
    """Classes in a group of those that ``top`` reads."""
    size = GROUP * 8 // x.dtype.bitwidth

    def size_of(x: Any) -> int:
        return size

    return size_of


@inlined
def groups_of(x: Any, classes: int) -> int:
    """Number of groups of a row; the last one may be shorter."""
    return (classes + group_size(x) - 1) // group_size(x)


@inlined
def blocks_of(x: Any, classes: int) -> int:
    """Number of blocks of a row, the last one included that may be shorter."""
    return (classes + BLOCK - 1) // BLOCK


@inlined
def sum_tracked(
    x: Any, first: int, count: int, options: Any, shift: float, maxima: Any, size: int, c: int
) -> float:
    """``rows.sum_powers`` of the classes from ``c`` on, a block at most; the same bits.

    Writes the maxima of its groups of ``size`` classes, and behind those of all groups that of the
    block.
    """
    step, cap = width(x), options.cap
    scales, shifts = constant(x, options.scale), constant(x, -shift)
    even, odd, lowest = constant(x, 0.0), constant(x, 0.0), constant(x, -math.inf)
    of_block, group = lowest, c // size * step
    for start in range(0, count, size):
        stop = min(start + size, count)
        whole = stop - (stop - start) % (2 * step)
        largest_two = no_maximum(x)
        for i in range(start, whole, 2 * step):
            prefetch(x, first + i + ahead(x))
            prefetch(x, first + i + step + ahead(x))
            one, other = load_two(x, first + i)
            largest_two = raised(x, first + i, one, other, largest_two)
            even = even + exp2(fma(capped(x, one, cap), scales, shifts))
            odd = odd + exp2(fma(capped(x, other, cap), scales, shifts))
        largest = as_lanes(x, largest_two)
        for i in range(whole, stop, step):
            largest = maximum(load_first(x, first + i, stop - i, lowest), largest)
            t = fma(read_first(x, first + i, stop - i, lowest, cap), scales, shifts)
            even = even + exp2(t)
        store(maxima, group, largest)
        of_block = maximum(largest, of_block)
        group += step
    store(maxima, maxima.size - (c // BLOCK + 1) * step, of_block)
    return float(sum_across(even + odd))


@inlined
def take_maxima(x: Any, first: int, classes: int, maxima: Any, size: int) -> None:
    """Write the maxima of a row that was not summed by ``sum_tracked``."""
    step, lowest = width(x), constant(x, -math.inf)
    of_block, groups = lowest, (classes + size - 1) // size
    for g in range(groups):
        stop, largest = min((g + 1) * size, classes), lowest
        for i in range(g * size, stop, step):
            largest = maximum(load_first(x, first + i, stop - i, lowest), largest)
        store(maxima, g * step, largest)
        of_block = maximum(largest, of_block)
        if stop % BLOCK == 0 or g == groups - 1:
            store(maxima, maxima.size - (g * size // BLOCK + 1) * step, of_block)
            of_block = lowest


@inlined
def largest_of(x: Any, maxima: Any, classes: int) -> float:
    """Largest logit of a row."""
    largest = constant(x, -math.inf)
    for b in range(blocks_of(x, classes)):
        largest = maximum(load(maxima, maxima.size - (b + 1) * width(x)), largest)
    return float(max_across(largest))


@inlined
def largest_other(x: Any, first: int, classes: int, y: int, maxima: Any, size: int) -> float:
    """Largest logit of all classes but ``y``; -inf of none."""
    step, lowest = width(x), constant(x, -math.inf)
    groups, own, largest = (classes + size - 1) // size, y // size, lowest
    stop, block = min((own + 1) * size, classes), y // BLOCK
    for i in range(own * size, y, step):
        largest = maximum(load_first(x, first + i, y - i, lowest), largest)
    for i in range(y + 1, stop, step):
        largest = maximum(load_first(x, first + i, stop - i, lowest), largest)
    for g in range(block * BLOCK // size, min((block + 1) * BLOCK // size, groups)):
        if g != own:
            largest = maximum(load(maxima, g * step), largest)
    for b in range(blocks_of(x, classes)):
        if b != block:
            largest = maximum(load(maxima, maxima.size - (b + 1) * step), largest)
    return float(max_across(largest))
