"""Selection of a row's largest logits, from the maxima of its groups (``maxima``).

A bound that enough logits reach, and few more, is found from the maxima alone. Groups that reach it
are read again, from cache, and the logits found there are sorted.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels.compiled import by_type, inlined
from kernels.cpu.sums.maxima import GROUP, blocks_of, group_size, groups_of
from kernels.simd import (
    NO_KEY,
    above,
    at_least,
    bits_set,
    class_of,
    constant,
    element,
    get,
    halfway,
    knows_negatives,
    lane_of,
    load_compared,
    load_first,
    load_first_compared,
    load_maxima,
    load_sort_keys,
    lowest,
    lowest_bit,
    max_across,
    maximum,
    min_across,
    minimum,
    not_zero,
    put,
    sort_key,
    span,
    splat,
    spread,
    store,
    store_sort_keys,
    value_of,
    where_at_least,
    where_greater,
    width,
)

# Halvings of the interval in which ``_lower_bound`` searches: four find a bound for most rows.
_HALVINGS = 12
# Candidates that are sorted at once; of more, each is inserted where it belongs. Keys are written a
# group at a time, and sorted by registers.
MOST, REGISTER = 256, 8
KEYS = MOST + GROUP // 2 + REGISTER
# Classes that a sort key tells apart.
_CLASSES = 2**32
# Marks of groups that are tested at a time, and behind those of a row.
TESTED = 64


@inlined
def _lower_bound(x: Any, maxima: Any, first: int, registers: int, count: int) -> Any:
    """``bound_of_row`` by some maxima.

    The ``registers`` of maxima from ``first`` on are distinct logits, so it is enough that so many
    of them reach it. They are dealt out to as few hands as have ``count`` lanes in all: every
    lane's maximum reaches the least of these. From there the interval up to the largest is halved.
    """
    w, hands = width(x), (count + span(x) - 1) // span(x)
    if registers < 2 * hands:
        return lowest(x)
    least = most = load_maxima(x, maxima, first)
    for hand in range(hands):
        largest = load_maxima(x, maxima, first + hand * w)
        for r in range(hand + hands, registers, hands):
            largest = maximum(load_maxima(x, maxima, first + r * w), largest)
        least = minimum(largest, least) if hand else largest
        most = maximum(largest, most)
    low, high = min_across(least), max_across(most)
    if low == lowest(x):
        return low
    for _ in range(_HALVINGS):
        middle = halfway(x, low, high)
        bar, reached = spread(x, middle), 0
        for r in range(registers):
            reached += bits_set(at_least(load_maxima(x, maxima, first + r * w), bar))
        enough = reached >= count  # not a branch: which side it is cannot be predicted
        low, high = (middle, high) if enough else (low, middle)
        if enough and reached <= count + count // 4:
            break
    return low


@inlined
def bound_of_row(x: Any, classes: int, maxima: Any, count: int) -> Any:
    """A scalar that at least ``count`` logits of a row reach, and few more; or ``lowest``."""
    w, blocks = width(x), blocks_of(x, classes)
    if blocks * span(x) >= 4 * count:
        return _lower_bound(x, maxima, maxima.size - blocks * w, blocks, count)
    return _lower_bound(x, maxima, 0, groups_of(x, classes), count)


@inlined
def _mark_group(x: Any, first: int, left: int, bars: Any, columns: Any) -> None:
    """Write to ``columns``, for each lane, which registers of a group reach the bar there: minus
    2**r for each such register r. ``left`` logits of the row are left from ``first`` on.
    """
    w, each, reached = span(x), group_size(x) // span(x), spread(x, 0)
    if left >= group_size(x):
        for r in range(each):  # a difference: LLVM has two instructions for a masked sum
            more = reached - spread(x, 1 << r)
            reached = where_at_least(load_compared(x, first + r * w), bars, more, reached)
    else:
        for r in range(each):
            some = load_first_compared(x, first + r * w, max(left - r * w, 0))
            reached = where_at_least(some, bars, reached - spread(x, 1 << r), reached)
    store(columns, 0, reached)


@inlined
def _gather(
    x: Any, first: int, classes: int, maxima: Any, bar: Any, marks: Any, columns: Any, keys: Any
) -> int:
    """Write the sort keys of the logits that reach ``bar``; returns their number, or -1 where there
    are more than MOST.

    Groups are marked with the lanes whose maxima reach it. There are no branches on what is found
    but the loops' ends: a mispredicted one takes as long as a register's exponentials.
    """
    size, bars, groups, found = group_size(x), spread(x, bar), groups_of(x, classes), 0
    for g in range(groups):
        put(marks, g, at_least(load_maxima(x, maxima, g * width(x)), bars))
    for tested in range(0, groups, TESTED):
        some = not_zero(marks, tested)
        if groups - tested < TESTED:
            some &= (1 << (groups - tested)) - 1
        while some != 0:
            g = tested + lowest_bit(some)
            some &= some - 1
            start, lanes = g * size, int(get(marks, g))
            _mark_group(x, first + start, classes - start, bars, columns)
            while lanes != 0:
                lane = lowest_bit(lanes)
                lanes &= lanes - 1
                registers = -lane_of(x, columns, lane)
                while registers != 0:
                    c = start + lowest_bit(registers) * span(x) + lane
                    registers &= registers - 1
                    put(keys, found, sort_key(x, first + c, c))
                    found += 1
            if found > MOST:
                return -1
    return found


@inlined
def _sort(found: int, count: int, keys: Any, ranks: Any, places: Any) -> None:
    """Write the classes of the ``count`` largest of the ``found`` keys, in order.

    A key's rank is the number of larger ones. The others are written behind them, all to one
    element, so that no branch depends on a rank; keys are padded to whole registers, so that few
    depend on their number.
    """
    store_sort_keys(keys, found, splat(NO_KEY))
    padded, one = (found + REGISTER - 1) // REGISTER * REGISTER, splat(np.int64(1))
    for i in range(0, padded, REGISTER):
        own, rank = load_sort_keys(keys, i), splat(np.int64(0))
        for j in range(padded):
            rank = where_greater(splat(get(keys, j)), own, rank + one, rank)
        store_sort_keys(ranks, i, rank)
    for j in range(padded):
        put(places, min(get(ranks, j), count), class_of(get(keys, j)))


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
    w, size, nothing, found = width(x), group_size(x), constant(x, -math.inf), 0
    for g in range(groups_of(x, classes)):
        largest = value_of(x, max_across(load_maxima(x, maxima, g * w)))
        if not (largest > bar if found == count else largest >= bar):
            continue
        stop = min((g + 1) * size, classes)
        for i in range(g * size, stop, w):
            bars, value = constant(x, bar), load_first(x, first + i, stop - i, nothing)
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


@by_type
def _sorted_at_once(
    x: Any, first: Any, classes: Any, maxima: Any, bar: Any, count: Any, marks: Any, keys: Any,
    ranks: Any, values: Any, places: Any,
) -> Any:  # fmt: skip
    """Write the largest logits and their classes, and return True, unless there are too many
    candidates; float64 has no sort keys.
    """

    def never(
        x: Any, first: Any, classes: Any, maxima: Any, bar: Any, count: Any, marks: Any, keys: Any,
        ranks: Any, values: Any, places: Any,
    ) -> bool:  # fmt: skip
        return False

    def sort(
        x: Any, first: Any, classes: Any, maxima: Any, bar: Any, count: Any, marks: Any, keys: Any,
        ranks: Any, values: Any, places: Any,
    ) -> bool:  # fmt: skip
        found = _gather(x, first, classes, maxima, bar, marks, values, keys)
        if found < 0:
            return False
        _sort(found, count, keys, ranks, places)
        for i in range(count):
            values[i] = element(x, first + places[i])
        return True

    return never if x.dtype.bitwidth == 64 else sort


@inlined
def select_largest(
    x: Any, first: int, classes: int, maxima: Any, bar: Any, count: int, marks: Any, keys: Any,
    ranks: Any, values: Any, places: Any,
) -> None:  # fmt: skip
    """Write the ``count`` largest logits in order to ``values``, and their classes to ``places``.

    Of equals the first classes come first. ``bar`` is from ``bound_of_row``; ``marks``, ``keys``
    and ``ranks`` are scratch.
    """
    # Bits of 16-bit floats are in order from 0 on; -0 is none of them, but equal to 0.
    value = value_of(x, bar)
    enough = value > 0.0 or (knows_negatives(x) and value > -math.inf)
    if (
        enough
        and classes <= _CLASSES
        and _sorted_at_once(
            x, first, classes, maxima, bar, count, marks, keys, ranks, values, places
        )
    ):
        return
    _insert_all(x, first, classes, maxima, value, count, values, places)
