"""Maxima of groups of a row's classes, taken while the row is summed, and what follows from them.

A group is 1 KiB of logits; each lane keeps the largest that it saw of the group. The maxima of a
row are a sixteenth of it, so that its largest logits are found without a second sweep: only groups
whose maxima are large enough are read again. Logits are compared without the soft cap, which keeps
their order, but may round two to one number. Maxima of 16-bit logits are known from 0 on, and are
-inf below (``simd.words``), until ``take_maxima`` reads the row once more.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined
from kernels.cpu.logit import capped, read_first
from kernels.simd import (
    above,
    ahead,
    as_lanes,
    at_least,
    bar_of,
    bits_set,
    constant,
    element,
    exp2,
    fma,
    load,
    load_first,
    load_two,
    lowest_bit,
    max_across,
    maximum,
    min_across,
    minimum,
    no_maximum,
    prefetch,
    raised,
    reach,
    reaching,
    store,
    sum_across,
    width,
)

# Bytes in a group; classes in a block, which is that of ``rows``' sums in float32.
GROUP, BLOCK = 1024, 4096
# Halvings of the interval in which ``_lower_bound`` searches: four find a bound for most rows.
_HALVINGS = 12
# Candidates that are sorted at once; of more, each is inserted where it belongs.
MOST = 256
# Elements of ``_gather``'s marks of registers: those of MOST, and of a last group.
MARKS = MOST + GROUP // 16


@inlined
def group_size(x: Any) -> int:
    """Classes in a group."""
    return GROUP // x.itemsize


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
    x: Any, first: int, count: int, options: Any, shift: float, maxima: Any, c: int
) -> float:
    """``rows.sum_powers`` of the classes from ``c`` on, a block at most; the same bits.

    Writes the maxima of its groups, and behind those of all groups that of the block.
    """
    step, size, cap = width(x), group_size(x), options.cap
    scales, shifts = constant(x, options.scale), constant(x, -shift)
    even, odd, lowest = constant(x, 0.0), constant(x, 0.0), constant(x, -math.inf)
    of_block = lowest
    for start in range(0, count, size):
        stop = min(start + size, count)
        whole = start + (stop - start) // (2 * step) * (2 * step)
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
        store(maxima, (c + start) // size * step, largest)
        of_block = maximum(largest, of_block)
    store(maxima, maxima.size - (c // BLOCK + 1) * step, of_block)
    return float(sum_across(even + odd))


@inlined
def take_maxima(x: Any, first: int, classes: int, maxima: Any) -> None:
    """Write the maxima of a row that was not summed by ``sum_tracked``."""
    step, size, lowest = width(x), group_size(x), constant(x, -math.inf)
    of_block, groups = lowest, groups_of(x, classes)
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
def largest_other(x: Any, first: int, classes: int, y: int, maxima: Any) -> float:
    """Largest logit of all classes but ``y``; -inf of none."""
    step, size, lowest = width(x), group_size(x), constant(x, -math.inf)
    groups, own, largest = groups_of(x, classes), y // size, lowest
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


@inlined
def _lower_bound(x: Any, maxima: Any, first: int, registers: int, count: int) -> float:
    """``bound_of_row`` by some maxima.

    The ``registers`` of maxima from ``first`` on are distinct logits, so it is enough that so many
    of them reach it. They are dealt out to as few hands as have ``count`` lanes in all: every
    lane's maximum reaches the least of these. From there the interval up to the largest is halved.
    """
    w, lowest = width(x), constant(x, -math.inf)
    hands = (count + w - 1) // w
    if registers < 2 * hands:
        return -math.inf
    least, most = constant(x, math.inf), lowest
    for hand in range(hands):
        largest = lowest
        for r in range(hand, registers, hands):
            largest = maximum(load(maxima, first + r * w), largest)
        least, most = minimum(largest, least), maximum(largest, most)
    low, high = float(min_across(least)), float(max_across(most))
    if low == -math.inf:
        return low
    for _ in range(_HALVINGS):
        middle = 0.5 * low + 0.5 * high
        bar, reaching = constant(x, middle), 0
        for r in range(registers):
            reaching += bits_set(at_least(load(maxima, first + r * w), bar))
        if reaching < count:
            high = middle
        else:
            low = middle
            if reaching <= count + count // 4:
                break
    return low


@inlined
def bound_of_row(x: Any, classes: int, maxima: Any, count: int) -> float:
    """A number that at least ``count`` logits of a row reach, and few more; or -inf."""
    w, blocks = width(x), blocks_of(x, classes)
    if blocks * w >= 4 * count:
        return _lower_bound(x, maxima, maxima.size - blocks * w, blocks, count)
    return _lower_bound(x, maxima, 0, groups_of(x, classes), count)


@inlined
def _gather(
    x: Any, first: int, classes: int, maxima: Any, bar: float, marks: Any, values: Any, places: Any
) -> int:
    """Write the logits that reach ``bar`` in the order of their classes, and these to ``places``.

    Returns their number, or -1 where there are more than MOST. There are no branches on what is
    found but the loops' ends: a mispredicted one takes as long as a register's exponentials.
    """
    w, size, lowest, bars = width(x), group_size(x), constant(x, -math.inf), constant(x, bar)
    hit, found, at = 0, 0, 0
    for g in range(groups_of(x, classes)):
        marks[hit] = g
        hit += at_least(load(maxima, g * w), bars) != 0
    if hit > MOST // 2:
        return -1
    # The marks of groups are in front, those of registers with their bits follow.
    registers, limit, step = marks[marks.size - MARKS :], bar_of(x, bar), reach(x)
    for h in range(hit):
        start = marks[h] * size
        stop = min(start + size, classes)
        whole = start + (stop - start) // step * step
        for i in range(start, whole, step):
            bits = reaching(x, first + i, limit)
            registers[found] = (i << 32) | bits
            found += bits != 0
        for i in range(whole, stop, w):
            bits = at_least(load_first(x, first + i, stop - i, lowest), bars)
            registers[found] = (i << 32) | bits
            found += bits != 0
        if found > MOST:
            return -1
    for r in range(found):
        i, bits = registers[r] >> 32, registers[r] & 0xFFFFFFFF
        if at + bits_set(bits) > MOST:
            return -1
        while bits != 0:
            c = i + lowest_bit(bits)
            bits &= bits - 1
            values[at], places[at] = element(x, first + c), c
            at += 1
    return at


@inlined
def _sort(x: Any, found: int, count: int, given: Any, at: Any, values: Any, places: Any) -> None:
    """Write the ``count`` largest of the ``found`` values ``given``, with their places ``at``, in
    order: a value's rank is the number of larger ones and of equal ones before it.
    """
    w = width(x)
    store(given, found, constant(x, -math.inf))
    for j in range(found):
        own, rank = constant(x, given[j]), 0
        for i in range(0, found, w):
            lanes = load(given, i)
            larger, reaching = above(lanes, own), at_least(lanes, own)
            before = (1 << min(max(j - i, 0), w)) - 1
            rank += bits_set(larger | (reaching & before))
        if rank < count:
            values[rank], places[rank] = given[j], at[j]


@inlined
def _insert(value: float, c: int, found: int, count: int, values: Any, places: Any) -> int:
    """Insert class ``c`` behind all that are not smaller; returns how many there are then."""
    at = min(found, count - 1)
    while at > 0 and values[at - 1] < value:
        values[at], places[at] = values[at - 1], places[at - 1]
        at -= 1
    values[at], places[at] = value, c
    return min(found + 1, count)


@inlined
def _insert_all(
    x: Any, first: int, classes: int, maxima: Any, bar: float, count: int, values: Any, places: Any
) -> None:
    """``_gather`` and ``_sort`` for any number of candidates, one after another."""
    w, size, lowest, found = width(x), group_size(x), constant(x, -math.inf), 0
    for g in range(groups_of(x, classes)):
        largest, bars = load(maxima, g * w), constant(x, bar)
        if (above(largest, bars) if found == count else at_least(largest, bars)) == 0:
            continue
        stop = min((g + 1) * size, classes)
        for i in range(g * size, stop, w):
            bars, value = constant(x, bar), load_first(x, first + i, stop - i, lowest)
            bits = above(value, bars) if found == count else at_least(value, bars)
            if stop - i < w:
                bits &= (1 << (stop - i)) - 1
            while bits != 0:
                c = i + lowest_bit(bits)
                bits &= bits - 1
                candidate = float(element(x, first + c))
                if found < count or candidate > values[count - 1]:
                    found = _insert(candidate, c, found, count, values, places)
            if found == count:
                bar = max(bar, values[count - 1])


@called
def select_largest(
    x: Any, first: int, classes: int, maxima: Any, bar: float, count: int, marks: Any, given: Any,
    at: Any, values: Any, places: Any,
) -> None:  # fmt: skip
    """Write the ``count`` largest logits in order to ``values``, and their classes to ``places``.

    Of equals the first classes come first. ``bar`` is from ``bound_of_row``; ``marks``, ``given``
    and ``at`` are scratch.
    """
    found = -1
    if bar > -math.inf:
        found = _gather(x, first, classes, maxima, bar, marks, given, at)
    if found >= 0:
        _sort(x, found, count, given, at, values, places)
    else:
        _insert_all(x, first, classes, maxima, bar, count, values, places)
