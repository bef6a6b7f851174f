"""Selection of a row's largest logits, from the maxima of its groups (``maxima``).

A bound that enough logits reach, and few more, is found from the maxima alone. Groups that reach it
are read again, from cache, and the logits found there are sorted.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined
from kernels.cpu.sums.maxima import GROUP, blocks_of, group_size, groups_of
from kernels.simd import (
    REACH,
    above,
    at_least,
    bar_of,
    bits_set,
    constant,
    element,
    knows_negatives,
    load,
    load_first,
    lowest_bit,
    max_across,
    maximum,
    min_across,
    minimum,
    not_zero,
    reaching,
    store,
    width,
)

# Halvings of the interval in which ``_lower_bound`` searches: four find a bound for most rows.
_HALVINGS = 12
# Candidates that are sorted at once; of more, each is inserted where it belongs.
MOST = 256
# Elements of ``_gather``'s marks behind those of groups: REACH logits of a group a bit, and SLACK
# beyond the last.
SLACK = 64
MARKS = MOST // 2 * (GROUP // 2 // REACH) + SLACK


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
        enough = reaching >= count  # not a branch: which side it is cannot be predicted
        low, high = (middle, high) if enough else (low, middle)
        if enough and reaching <= count + count // 4:
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
def _mark(x: Any, first: int, classes: int, bar: float, groups: Any, hit: int, bits: Any) -> None:
    """Write which logits of the ``groups`` reach ``bar``, REACH logits an element of ``bits``."""
    w, size, lowest, bars = width(x), group_size(x), constant(x, -math.inf), constant(x, bar)
    limit, each = bar_of(x, bar), size // REACH
    for h in range(hit):
        start = groups[h] * size
        if start + size <= classes:
            for j in range(each):
                bits[h * each + j] = reaching(x, first + start + j * REACH, limit)
            continue
        for j in range(each):
            word = 0
            for i in range(0, REACH, w):
                c = start + j * REACH + i
                if c < classes:
                    lanes = load_first(x, first + c, classes - c, lowest)
                    word |= at_least(lanes, bars) << i
            bits[h * each + j] = word


@inlined
def _gather(
    x: Any, first: int, classes: int, maxima: Any, bar: float, marks: Any, values: Any, places: Any
) -> int:
    """Write the logits that reach ``bar`` in the order of their classes, and these to ``places``.

    Returns their number, or -1 where there are more than MOST. There are no branches on what is
    found but the loops' ends: a mispredicted one takes as long as a register's exponentials.
    """
    w, size, bars = width(x), group_size(x), constant(x, bar)
    hit, at, each = 0, 0, size // REACH
    for g in range(groups_of(x, classes)):
        marks[hit] = g
        hit += at_least(load(maxima, g * w), bars) != 0
    if hit > MOST // 2:
        return -1
    bits = marks[marks.size - MARKS :]
    _mark(x, first, classes, bar, marks, hit, bits)
    for word in range(0, hit * each, SLACK):
        some = not_zero(bits, word)
        if hit * each - word < SLACK:
            some &= (1 << (hit * each - word)) - 1
        while some != 0:
            mark = word + lowest_bit(some)
            some &= some - 1
            found, start = bits[mark], marks[mark // each] * size + mark % each * REACH
            if at + bits_set(found) > MOST:
                return -1
            while found != 0:
                c = start + lowest_bit(found)
                found &= found - 1
                values[at], places[at] = element(x, first + c), c
                at += 1
    return at


@inlined
def _sort(x: Any, found: int, count: int, given: Any, at: Any, values: Any, places: Any) -> None:
    """Write the ``count`` largest of the ``found`` values ``given``, with their places ``at``, in
    order: a value's rank is the number of larger ones and of equal ones before it.

    The others are written behind them, all to one element, so that no branch depends on a rank.
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
        rank = min(rank, count)
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
    # Bits of 16-bit floats are in order from 0 on; -0 is none of them, but equal to 0.
    if bar > 0.0 or (knows_negatives(x) and bar > -math.inf):
        found = _gather(x, first, classes, maxima, bar, marks, given, at)
    if found >= 0:
        _sort(x, found, count, given, at, values, places)
    else:
        _insert_all(x, first, classes, maxima, bar, count, values, places)
