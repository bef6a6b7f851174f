"""Summary of rows for a report, in one read: loss, rank, prediction, and squared probabilities.

The sums are those of ``sums.rows``, with the same bits. Beside them a block's keys (``simd.keys``)
are compared with the label's, which is read first, and the largest is kept; the class of the
largest is looked for in the one block that has it. Rows of which ``sums.rows`` has no sum are left
to the callers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from kernels.compiled import inlined, kernel_by_address
from kernels.cpu.packed import unpacked
from kernels.cpu.sums.rows import BLOCK, BLOCK_LIMIT, GUESS, SEGMENT, merge, shift_for
from kernels.cpu.tile import LOG_PROB, MINUS, TOTAL, VALUE, take_logarithms
from kernels.formula import FAR, LARGEST_SHIFT
from kernels.plan import place
from kernels.simd import (
    ahead,
    bits_set,
    compare_keys,
    constant,
    element,
    exp2,
    fma,
    key_at,
    key_count,
    keys_at_least,
    largest_key,
    least_keys,
    load_first,
    load_keys,
    load_two,
    lowest_bit,
    prefetch,
    sum_across,
    width,
)
from kernels.simd.keys import LEAST_KEY


class Found(NamedTuple):
    """Arrays that the kernel writes, one value a position.

    ``nll`` is minus the label's log-probability, ``squares`` the sum of all squared probabilities,
    ``own`` and ``largest`` are the logits of the label and of ``prediction``: float64. ``rank`` is
    the number of classes before the label. ``prediction`` is -1, and the others mean nothing,
    where float32 cannot hold the sums.
    """

    nll: Any
    squares: Any
    own: Any
    largest: Any
    rank: Any
    prediction: Any


@inlined
def _summed(
    x: Any, first: int, count: int, options: Any, shift: float, bar: int
) -> tuple[float, float, int, int]:
    """``sums.rows.sum_powers``, the sum of the powers' squares, the largest key, and the number of
    keys that are at least ``bar``.
    """
    step = width(x)
    scales, shifts = constant(x, options.scale), constant(x, -shift)
    even, odd, lowest = constant(x, 0.0), constant(x, 0.0), constant(x, -math.inf)
    even_squares, odd_squares, keys = constant(x, 0.0), constant(x, 0.0), least_keys(x)
    whole, above = count // (2 * step) * (2 * step), 0
    for i in range(0, whole, 2 * step):
        prefetch(x, first + i + ahead(x))
        prefetch(x, first + i + step + ahead(x))
        one, other = load_two(x, first + i)
        keys, more = compare_keys(x, first + i, bar, keys)
        above += more
        power, other_power = exp2(fma(one, scales, shifts)), exp2(fma(other, scales, shifts))
        even, odd = even + power, odd + other_power
        even_squares = fma(power, power, even_squares)
        odd_squares = fma(other_power, other_power, odd_squares)
    for i in range(whole, count, step):
        power = exp2(fma(load_first(x, first + i, count - i, lowest), scales, shifts))
        even = even + power
        even_squares = fma(power, power, even_squares)
    largest = largest_key(keys)
    for i in range(whole, count):
        key = key_at(x, first + i)
        largest = max(largest, key)
        above += 1 if key >= bar else 0
    squares = float(sum_across(even_squares + odd_squares))
    return float(sum_across(even + odd)), squares, largest, above


@inlined
def _at_least(x: Any, first: int, count: int, bar: int) -> int:
    """Number of keys that are at least ``bar``."""
    size, above = key_count(x), 0
    whole = count // size * size
    for i in range(0, whole, size):
        above += bits_set(keys_at_least(load_keys(x, first + i), bar))
    for i in range(whole, count):
        above += 1 if key_at(x, first + i) >= bar else 0
    return above


@inlined
def _first_at_least(x: Any, first: int, count: int, bar: int) -> int:
    """Index of the first key that is at least ``bar``; ``count`` without any."""
    size = key_count(x)
    whole = count // size * size
    for i in range(0, whole, size):
        bits = keys_at_least(load_keys(x, first + i), bar)
        if bits != 0:
            return i + lowest_bit(bits)
    for i in range(whole, count):
        if key_at(x, first + i) >= bar:
            return i
    return count


@inlined
def _one_zero(key: int) -> int:
    """``key``, or that of 0.0 for -0.0, which equals it."""
    return 0 if key == -1 else key


@inlined
def _bar(key: int) -> int:
    """The least key of all logits that are at least that of ``key``, from ``_one_zero``."""
    return -1 if key == 0 else key


@inlined
def _summarise(
    x: Any, first: int, classes: int, y: int, options: Any, scratch: Any, at: int, found: Any,
    position: int,
) -> None:  # fmt: skip
    """Write what is ``found`` of a row but its loss, and to ``scratch`` what that is made of."""
    own, best, place_of_best, rank = _one_zero(key_at(x, first + y)), LEAST_KEY, 0, 0
    total, shift, squares = 0.0, -LARGEST_SHIFT, 0.0
    for segment in range(0, classes, SEGMENT):
        stop = min(segment + SEGMENT, classes)
        part_shift = shift_for(x, first + segment, min(stop - segment, GUESS), options)
        part, part_squares = 0.0, 0.0
        for c in range(segment, stop, BLOCK):
            size = min(BLOCK, stop - c)
            bar = _bar(own) if c + size <= y else own + 1
            more, square, key, above = _summed(x, first + c, size, options, part_shift, bar)
            if not more < BLOCK_LIMIT:
                exact = shift_for(x, first + c, size, options)
                factor = 2.0 ** (part_shift - exact)
                part, part_squares = part * factor, part_squares * factor * factor
                part_shift = exact
                more, square, key, above = _summed(x, first + c, size, options, exact, bar)
            part, part_squares, rank = part + more, part_squares + square, rank + above
            key = _one_zero(key)
            if key > best:
                best, place_of_best = key, c
            if c <= y and y < c + size:  # equal ones before the label
                rank += _at_least(x, first + c, y - c, _bar(own))
                rank -= _at_least(x, first + c, y - c, own + 1)
        squares, _ = merge(squares, 2.0 * shift, part_squares, 2.0 * part_shift)
        total, shift = merge(total, shift, part, part_shift)
    value = element(x, first + y)
    lost = math.isnan(total) or abs(shift) == LARGEST_SHIFT
    scratch[TOTAL, at], scratch[MINUS, at], scratch[VALUE, at] = total, -shift, value
    found.own[position], found.rank[position] = value, rank
    found.squares[position] = squares / (total * total)
    if lost or (value * options.scale < -FAR and value > -math.inf):
        found.prediction[position] = -1
        return
    stop = min(place_of_best + BLOCK, classes)
    block = first + place_of_best
    place_of_best += _first_at_least(x, block, stop - place_of_best, _bar(best))
    found.prediction[position] = place_of_best
    found.largest[position] = element(x, first + place_of_best)


@kernel_by_address
def summary_kernel(share: int, shares: int, packed: Any) -> None:
    """Summarise ``share``, of ``shares`` contiguous ones of all tiles, of contiguous classes.

    Its operands are those of ``launch.summary``: labels are int64, each of them a class.
    """
    tile, logits, _, labels, options, found, _, _, scratches, _ = unpacked(packed)
    x, tiles = logits.data, (logits.positions + tile - 1) // tile
    scratch = scratches[share % scratches.shape[0]]
    for t in range(tiles * share // shares, tiles * (share + 1) // shares):
        lo = t * tile
        count = min(tile, logits.positions - lo)
        for i in range(count):
            first, y = place(logits, lo + i), labels[lo + i]
            _summarise(x, first, logits.classes, y, options, scratch, i, found, lo + i)
        take_logarithms(scratch, 0, count, options.scale, x)
        for i in range(count):
            found.nll[lo + i] = -(scratch[LOG_PROB, i] * options.to_nats)
