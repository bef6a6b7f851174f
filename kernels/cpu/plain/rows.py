"""Sums of ``plain``'s rows: of so many classes that a row fills registers of its own.

Shifts are guessed from a row's first classes and from its label's logit, mostly the largest in a
trained model. Rows whose sum shows that the guess was poor are summed again, with their exact
maximum: a row's bits depend on it and on its label alone. Some rows at a time are folded together
into registers of one value a row.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels.compiled import called, inlined, never_inlined
from kernels.cpu.plain.scratch import LABEL, MINUS, TOTAL, VALUE, WIDTH
from kernels.cpu.sums.planes import held_shift
from kernels.plan import place
from kernels.simd import (
    constant,
    element,
    exp2,
    exp2_four,
    fma,
    load,
    load_first,
    load_two,
    max_across,
    maximum,
    pair_maxima,
    pair_sums,
    prefetch,
    prefetch_at,
    splat,
    store,
    store_first,
    sum_across,
)

# Elements of the rows that are summed together.
TOGETHER = 3072
# Such groups of rows from a sum to its prefetch, of short rows and of others: the rows' maxima are
# read one group before their sums. 100 classes in memory took 16.6 ns a row with 2, and 13.9 with
# 3; 1000 in cache 74 with 2, and 79 with 3.
FAR, NEAR = 3, 2
# Classes that shifts are guessed from. To read all took a fifth of the time of 1000 in cache, and
# to read 64 took 3 % of that of 100 in memory.
GUESS = 2 * WIDTH
# t up to 16 costs at most 3.3e-7: half an ulp of it, times ln 2.
LIMIT = 2.0**16


@inlined
def _row_maximum(x: Any, first: int, classes: int) -> Any:
    """Largest logits of a row, still spread over the lanes; NaNs are passed over."""
    lowest = constant(x, -math.inf)
    largest = lowest
    whole = classes // WIDTH * WIDTH
    for i in range(0, whole, WIDTH):
        largest = maximum(load(x, first + i), largest)
    if whole < classes:
        largest = maximum(load_first(x, first + whole, classes - whole, lowest), largest)
    return largest


@inlined
def _row_sum(x: Any, first: int, classes: int, far: int, scales: Any, minus: Any) -> Any:
    """sum(2**(x * scale + minus)) of a row, still spread over the lanes.

    Meanwhile the row ``far`` elements away is prefetched.
    """
    shift, lowest, zero = splat(minus), constant(x, -math.inf), constant(x, 0.0)
    a, b, c, d = zero, zero, zero, zero
    whole = classes // (4 * WIDTH) * (4 * WIDTH)
    for i in range(0, whole, 4 * WIDTH):
        prefetch(x, first + i + far)
        prefetch(x, first + i + WIDTH + far)
        prefetch(x, first + i + 2 * WIDTH + far)
        prefetch(x, first + i + 3 * WIDTH + far)
        p, q = load_two(x, first + i)
        r, s = load_two(x, first + i + 2 * WIDTH)
        p, q = fma(p, scales, shift), fma(q, scales, shift)
        r, s = fma(r, scales, shift), fma(s, scales, shift)
        p, q, r, s = exp2_four(p, q, r, s)
        a, b, c, d = a + p, b + q, c + r, d + s
    full = classes // WIDTH * WIDTH
    for i in range(whole, full, WIDTH):
        prefetch(x, first + i + far)
        a = a + exp2(fma(load(x, first + i), scales, shift))
    if full < classes:
        prefetch(x, first + full + far)
        rest = load_first(x, first + full, classes - full, lowest)
        b = b + exp2(fma(rest, scales, shift))
    return (a + b) + (c + d)


@called
def _sum_exactly(
    x: Any, first: int, classes: int, scale: float, row: int, minus: Any, totals: Any
) -> None:
    """Write MINUS and TOTAL of one row, from its exact maximum."""
    scales, largest = splat(np.float32(scale)), max_across(_row_maximum(x, first, classes))
    store_first(minus, row, 1, held_shift(minus, splat(largest), scale))
    totals[row] = sum_across(_row_sum(x, first, classes, 0, scales, minus[row]))


@inlined
def _four_maxima(spread: Any, at: int) -> Any:
    low = pair_maxima(load(spread, at), load(spread, at + WIDTH), 1)
    high = pair_maxima(load(spread, at + 2 * WIDTH), load(spread, at + 3 * WIDTH), 1)
    return pair_maxima(low, high, 2)


@inlined
def _fold_maxima(spread: Any, count: int) -> Any:
    """Maximum of each of the first ``count`` of 16 registers in ``spread``, a lane each."""
    first = _four_maxima(spread, 0)
    if count <= 4:
        both = pair_maxima(first, first, 4)
        return pair_maxima(both, both, 8)
    low = pair_maxima(first, _four_maxima(spread, 4 * WIDTH), 4)
    high = pair_maxima(_four_maxima(spread, 8 * WIDTH), _four_maxima(spread, 12 * WIDTH), 4)
    return pair_maxima(low, high, 8)


@inlined
def _four_sums(spread: Any, at: int) -> Any:
    low = pair_sums(load(spread, at), load(spread, at + WIDTH), 1)
    high = pair_sums(load(spread, at + 2 * WIDTH), load(spread, at + 3 * WIDTH), 1)
    return pair_sums(low, high, 2)


@inlined
def _fold_sums(spread: Any, count: int) -> Any:
    """Sum of each of the first ``count`` of 16 registers in ``spread``, a lane each.

    Additions are in the same order whatever the count.
    """
    first = _four_sums(spread, 0)
    if count <= 4:
        both = pair_sums(first, first, 4)
        return pair_sums(both, both, 8)
    low = pair_sums(first, _four_sums(spread, 4 * WIDTH), 4)
    high = pair_sums(_four_sums(spread, 8 * WIDTH), _four_sums(spread, 12 * WIDTH), 4)
    return pair_sums(low, high, 8)


@called
def sum_plain_rows(
    logits: Any, lo: int, count: int, spread: Any, rows: Any, scale: Any, labels: Any
) -> None:
    """Write VALUE, MINUS and TOTAL of ``count`` rows from ``lo`` on.

    ``labels`` are address and size of those to prefetch.
    """
    never_inlined()
    address, each = labels
    x, classes, scales = logits.data, logits.classes, splat(scale)
    values, minus, totals = rows[VALUE], rows[MINUS], rows[TOTAL]
    together = min(max(TOGETHER // classes, 1), WIDTH)
    spread_sums = spread[WIDTH * WIDTH :]
    far = (FAR if together == WIDTH else NEAR) * together * classes
    for start in range(0, count + together, together):
        for r in range(start, min(start + together, count)):
            first = place(logits, lo + r)
            value = np.float32(element(x, first + max(int(rows[LABEL, r]), 0)))
            values[r] = value
            largest = maximum(splat(value), _row_maximum(x, first, min(classes, GUESS)))
            store(spread, (r - start) * WIDTH, largest)
        if start < count:
            store(minus, start, held_shift(spread, _fold_maxima(spread, together), scale))
        if start == 0:
            continue
        # The sums of the rows before: meanwhile the maxima above are folded.
        before = start - together
        for r in range(before, min(start, count)):
            first = place(logits, lo + r)
            prefetch_at(address + r * each)
            power = _row_sum(x, first, classes, far, scales, minus[r])
            store(spread_sums, (r - before) * WIDTH, power)
        store(totals, before, _fold_sums(spread_sums, together))
    for r in range(count):
        if not totals[r] < LIMIT:
            _sum_exactly(x, place(logits, lo + r), classes, scale, r, minus, totals)
