"""Maxima of groups of a row's classes, taken while the row is summed, and what follows from them.

A group is 512 bytes of logits, eight registers; each lane keeps the largest that it saw of the
group. The maxima of a row are an eighth of it, so that its largest logits are found without a
second sweep: only groups whose maxima are large enough are read again. A block's maxima are those
of its groups. Logits are compared without the soft cap, which keeps their order, but may round two
to one number. Maxima of 16-bit logits are known from 0 on (``simd.words``), until ``take_maxima``
reads the row once more.
"""

from __future__ import annotations

from typing import Any

from kernels.compiled import by_type, inlined
from kernels.simd import (
    load_first_ordered,
    load_maxima,
    lowest,
    max_across,
    maximum,
    span,
    spread,
    store,
    value_of,
    width,
)

# Bytes of a group; classes in a block, which is that of ``rows`` in float32.
GROUP, BLOCK = 512, 4096


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
def keep_block(x: Any, maxima: Any, c: int, count: int) -> None:
    """Write the maxima of the block of ``count`` classes from ``c`` on, made of its groups'."""
    largest, size = spread(x, lowest(x)), group_size(x)
    for g in range(c // size, (c + count + size - 1) // size):
        largest = maximum(load_maxima(x, maxima, g * width(x)), largest)
    store(maxima, maxima.size - (c // BLOCK + 1) * width(x), largest)


@inlined
def take_maxima(x: Any, first: int, classes: int, maxima: Any) -> None:
    """Write the maxima of a row that was not summed by ``powers.sum_tracked``; all are known."""
    size = group_size(x)
    for g in range(groups_of(x, classes)):
        stop, largest = min((g + 1) * size, classes), spread(x, lowest(x))
        for i in range(g * size, stop, span(x)):
            largest = maximum(load_first_ordered(x, first + i, stop - i), largest)
        store(maxima, g * width(x), largest)
    for c in range(0, classes, BLOCK):
        keep_block(x, maxima, c, min(BLOCK, classes - c))


@inlined
def largest_of(x: Any, maxima: Any, classes: int) -> Any:
    """Largest of a row's maxima."""
    largest = spread(x, lowest(x))
    for b in range(blocks_of(x, classes)):
        largest = maximum(load_maxima(x, maxima, maxima.size - (b + 1) * width(x)), largest)
    return max_across(largest)


@inlined
def largest_other(x: Any, first: int, classes: int, y: int, maxima: Any) -> float:
    """Largest logit of all classes but ``y``; -inf of none."""
    w, size, largest = width(x), group_size(x), spread(x, lowest(x))
    groups, own, block = groups_of(x, classes), y // size, y // BLOCK
    for i in range(own * size, y, span(x)):
        largest = maximum(load_first_ordered(x, first + i, y - i), largest)
    stop = min((own + 1) * size, classes)
    for i in range(y + 1, stop, span(x)):
        largest = maximum(load_first_ordered(x, first + i, stop - i), largest)
    for g in range(block * BLOCK // size, min((block + 1) * BLOCK // size, groups)):
        if g != own:
            largest = maximum(load_maxima(x, maxima, g * w), largest)
    for b in range(blocks_of(x, classes)):
        if b != block:
            largest = maximum(load_maxima(x, maxima, maxima.size - (b + 1) * w), largest)
    return value_of(x, max_across(largest))
