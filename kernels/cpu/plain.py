"""Losses of class indices without further options, in float32 from the logits to the loss.

Sums of exponentials are those of ``rows``, with the exact maximum as their shift: the classes of a
position are in L1 when they are read again, and no sum has to be done twice. Layouts of two kinds:
``rows``, some at a time, folded together into registers of one value a row; and *columns*, where
a register holds one class of 16 neighbouring positions. Planes are copied to columns, since lines
that lie a power of two apart evict each other from cache; rows of few classes are transposed.

A position whose loss float32 cannot hold (NaN, infinities, shifts beyond ``LARGEST_SHIFT``) gets
the loss NaN here: ``loss`` computes its tile again, and takes the position from there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from kernels.compiled import by_type, inlined
from kernels.cpu.planes import CLASS_BLOCK, held_shift
from kernels.formula import LARGEST_SHIFT
from kernels.plan import place
from kernels.reduce import BLOCK, SCALE
from kernels.simd import (
    constant,
    count_greater,
    element,
    exp2,
    fma,
    load,
    load_first,
    load_two,
    log2_above,
    maximum,
    pair_maxima,
    pair_sums,
    prefetch,
    prove_lanes,
    splat,
    store,
    sum_across,
    transpose,
    where_equal,
    where_greater,
    widen_high,
    widen_low,
)

# Rows of float32 scratch, one value a position: the label (-1: ignored), its logit, the negated
# shift, sum(2**t), the loss in base 2.
LABEL, VALUE, MINUS, TOTAL, LOSS = range(5)
ROWS = 5
WIDTH = 16
# Classes: rows of more are not read twice; planes of more are too many lines for L2.
MOST_IN_ROWS = 4096
MOST_IN_PLANES = 256
# Classes: rows of more are summed as rows.
MOST_TRANSPOSED = 16
# Runs of neighbours, a class each, from a load to its prefetch.
RUNS_AHEAD = 4
# Elements of the rows that are summed together: half of L1.
TOGETHER = 3072
# Losses in base 2 beyond it are computed again.
LARGEST_LOSS = np.float32(2.0**100)
# Losses in base 2 below it may be those of a label whose power is the whole sum.
SMALL = np.float32(2.0**-18)
# Labels are above it unless they are ignored.
IGNORED = np.float32(-0.5)


def _no_plain_type(logits: Any, options: Any) -> bool:
    """Return True if operands of these Numba types are not for this module."""
    cap = options.types[options.fields.index("cap")]
    return logits.types[0].dtype == types.float64 or cap != types.none


@by_type
def is_plain(logits: Any, soft: Any, labels: Any, options: Any) -> Any:
    """Test whether this module computes losses of such ``Operands``."""
    if _no_plain_type(logits, options):

        def never(logits: Any, soft: Any, labels: Any, options: Any) -> bool:
            return False

        return never

    def without_options(logits: Any, soft: Any, labels: Any, options: Any) -> bool:
        most = MOST_IN_ROWS if logits.class_stride == 1 else MOST_IN_PLANES
        return (
            logits.classes <= most
            and labels.given > 0
            and soft.data.size == 0
            and options.weight.size == 0
            and options.lane_weight.size == 0
            and options.z_loss == 0.0
            and labels.sample_weight.size == 0
        )

    return without_options


def columns_of(view: Any, positions: int) -> int:
    """Number of float32 that ``scratch.columns`` needs for a tile of ``positions``."""
    if (view.class_stride == 1 and view.classes > MOST_TRANSPOSED) or view.classes > MOST_IN_PLANES:
        return 2 * WIDTH * WIDTH
    return max(view.classes, WIDTH) * ((positions + 2 * WIDTH) // WIDTH * WIDTH)


@inlined
def _copy_planes(logits: Any, lo: int, count: int, columns: Any, stride: int) -> None:
    """Copy the classes of ``count`` positions from ``lo`` on to columns of ``stride``."""
    x, done, zero = logits.data, 0, constant(columns, 0.0)
    while done < count:
        run = min(count - done, logits.inner_size - (lo + done) % logits.inner_size)
        first, whole = place(logits, lo + done), run // WIDTH * WIDTH
        for c in range(logits.classes):
            at, to = first + c * logits.class_stride, c * stride + done
            later = c + RUNS_AHEAD
            far = first + later % logits.classes * logits.class_stride
            far += later // logits.classes * run
            for i in range(0, whole, WIDTH):
                prefetch(x, far + i)
                store(columns, to + i, load(x, at + i))
            if whole < run:
                store(columns, to + whole, load_first(x, at + whole, run - whole, zero))
        done += run


@inlined
def _transpose_rows(
    logits: Any, lo: int, count: int, starts: Any, columns: Any, stride: int
) -> None:
    """Write ``count`` rows from ``lo`` on, of few classes, to columns of ``stride``."""
    x, classes = logits.data, logits.classes
    for i in range(0, count, WIDTH):
        for r in range(WIDTH):
            starts[r] = place(logits, lo + min(i + r, count - 1))
        for c in range(0, classes, WIDTH):
            transpose(x, starts, c, min(classes - c, WIDTH), columns, c * stride + i, stride)


@inlined
def _row_maximum(x: Any, first: int, classes: int) -> Any:
    """Largest logits of a row, still spread over the lanes; NaNs are passed over."""
    lowest = constant(x, -math.inf)
    even, odd = lowest, lowest
    whole = classes // (2 * WIDTH) * (2 * WIDTH)
    for i in range(0, whole, 2 * WIDTH):
        one, other = load_two(x, first + i)
        even, odd = maximum(one, even), maximum(other, odd)
    for i in range(whole, classes, WIDTH):
        even = maximum(load_first(x, first + i, classes - i, lowest), even)
    return maximum(even, odd)


@inlined
def _row_sum(x: Any, first: int, classes: int, far: int, scales: Any, minus: Any) -> Any:
    """sum(2**(x * scale + minus)) of a row, still spread over the lanes.

    Meanwhile the row ``far`` elements away is prefetched.
    """
    shift, lowest = splat(minus), constant(x, -math.inf)
    even, odd = constant(x, 0.0), constant(x, 0.0)
    whole = classes // (2 * WIDTH) * (2 * WIDTH)
    for i in range(0, whole, 2 * WIDTH):
        prefetch(x, first + i + far)
        prefetch(x, first + i + WIDTH + far)
        one, other = load_two(x, first + i)
        even = even + exp2(fma(one, scales, shift))
        odd = odd + exp2(fma(other, scales, shift))
    for i in range(whole, classes, WIDTH):
        prefetch(x, first + i + far)
        rest = load_first(x, first + i, classes - i, lowest)
        even = even + exp2(fma(rest, scales, shift))
    return even + odd


@inlined
def _four_maxima(spread: Any, at: int) -> Any:
    low = pair_maxima(load(spread, at), load(spread, at + WIDTH), 1)
    high = pair_maxima(load(spread, at + 2 * WIDTH), load(spread, at + 3 * WIDTH), 1)
    return pair_maxima(low, high, 2)


@inlined
def _fold_maxima(spread: Any) -> Any:
    """Maximum of each of the 16 registers in ``spread``, a lane each."""
    low = pair_maxima(_four_maxima(spread, 0), _four_maxima(spread, 4 * WIDTH), 4)
    high = pair_maxima(_four_maxima(spread, 8 * WIDTH), _four_maxima(spread, 12 * WIDTH), 4)
    return pair_maxima(low, high, 8)


@inlined
def _four_sums(spread: Any, at: int) -> Any:
    low = pair_sums(load(spread, at), load(spread, at + WIDTH), 1)
    high = pair_sums(load(spread, at + 2 * WIDTH), load(spread, at + 3 * WIDTH), 1)
    return pair_sums(low, high, 2)


@inlined
def _fold_sums(spread: Any) -> Any:
    """Sum of each of the 16 registers in ``spread``, a lane each."""
    low = pair_sums(_four_sums(spread, 0), _four_sums(spread, 4 * WIDTH), 4)
    high = pair_sums(_four_sums(spread, 8 * WIDTH), _four_sums(spread, 12 * WIDTH), 4)
    return pair_sums(low, high, 8)


@inlined
def _sum_rows(logits: Any, lo: int, count: int, spread: Any, rows: Any, scale: Any) -> None:
    """Write VALUE, MINUS and TOTAL of ``count`` rows from ``lo`` on."""
    x, classes, scales = logits.data, logits.classes, splat(scale)
    values, minus, totals = rows[VALUE], rows[MINUS], rows[TOTAL]
    together = min(max(TOGETHER // classes, 1), WIDTH)
    spread_sums = spread[WIDTH * WIDTH :]
    for start in range(0, count + together, together):
        for r in range(start, min(start + together, count)):
            first = place(logits, lo + r)
            store(spread, (r - start) * WIDTH, _row_maximum(x, first, classes))
            values[r] = element(x, first + max(int(rows[LABEL, r]), 0))
        if start < count:
            store(minus, start, held_shift(spread, _fold_maxima(spread), scale))
        if start == 0:
            continue
        # The sums of the rows before: meanwhile the maxima above are folded.
        before = start - together
        for r in range(before, min(start, count)):
            first = place(logits, lo + r)
            power = _row_sum(x, first, classes, 2 * together * classes, scales, minus[r])
            store(spread_sums, (r - before) * WIDTH, power)
        store(totals, before, _fold_sums(spread_sums))


@inlined
def _read_labels(labels: Any, numbers: Any, lo: int, count: int, classes: int, rows: Any) -> bool:
    """Write the labels ``numbers``, proved, to LABEL; True if all are classes or ignored."""
    wrong = 0
    for i in range(0, count, WIDTH):
        lanes, bits = prove_lanes(
            numbers, lo + i, count - i, classes, labels.mask, labels.ignores, labels.ignore_index
        )
        store(rows[LABEL], i, lanes)
        wrong |= bits
    return wrong == 0


@inlined
def _sum_columns(
    columns: Any, stride: int, logits: Any, lo: int, count: int, rows: Any, scale: Any
) -> None:
    """Write VALUE, MINUS and TOTAL of ``count`` positions from ``lo`` on, in ``columns``.

    Meanwhile the next tile's logits are prefetched: they are read when memory would be idle.
    """
    x, classes, minus, totals = logits.data, logits.classes, rows[MINUS], rows[TOTAL]
    labels, values = rows[LABEL], rows[VALUE]
    scales, one, lowest = splat(scale), constant(columns, 1.0), constant(columns, -math.inf)
    zero = constant(columns, 0.0)
    by_class = BLOCK if logits.class_stride == 1 else logits.class_stride
    by_position = classes if logits.class_stride == 1 else 1
    after = place(logits, lo) + count * by_position
    for i in range(0, count, WIDTH):
        largest = lowest
        for c in range(classes):
            largest = maximum(load(columns, c * stride + i), largest)
        store(minus, i, held_shift(columns, largest, scale))
        store(totals, i, zero)
    for start in range(0, classes, CLASS_BLOCK):
        stop = min(start + CLASS_BLOCK, classes)
        for i in range(0, count, BLOCK):
            low, high = load(minus, i), load(minus, i + WIDTH)
            label, other_label = load(labels, i), load(labels, i + WIDTH)
            value, other_value = load(values, i), load(values, i + WIDTH)
            total, other, number = zero, zero, constant(columns, float(start))
            for c in range(start, stop):
                prefetch(x, after + i * by_position + c * by_class)
                prefetch(x, after + i * by_position + c * by_class + WIDTH)
                a, b = load(columns, c * stride + i), load(columns, c * stride + i + WIDTH)
                total = total + exp2(fma(a, scales, low))
                other = other + exp2(fma(b, scales, high))
                value = where_equal(label, number, a, value)
                other_value = where_equal(other_label, number, b, other_value)
                number = number + one
            store(totals, i, load(totals, i) + total)
            store(totals, i + WIDTH, load(totals, i + WIDTH) + other)
            store(values, i, value)
            store(values, i + WIDTH, other_value)


@inlined
def _row_maximum(x: Any, first: int, classes: int) -> Any:
    """Largest logits of a row, still spread over the lanes; NaNs are passed over."""
    lowest = constant(x, -math.inf)
    even, odd = lowest, lowest
    whole = classes // (2 * WIDTH) * (2 * WIDTH)
    for i in range(0, whole, 2 * WIDTH):
        one, other = load_two(x, first + i)
        even, odd = maximum(one, even), maximum(other, odd)
    for i in range(whole, classes, WIDTH):
        even = maximum(load_first(x, first + i, classes - i, lowest), even)
    return maximum(even, odd)


@inlined
def _row_sum(x: Any, first: int, classes: int, far: int, scales: Any, minus: Any) -> Any:
    """sum(2**(x * scale + minus)) of a row, still spread over the lanes.

    Meanwhile the row ``far`` elements away is prefetched.
    """
    shift, lowest = splat(minus), constant(x, -math.inf)
    even, odd = constant(x, 0.0), constant(x, 0.0)
    whole = classes // (2 * WIDTH) * (2 * WIDTH)
    for i in range(0, whole, 2 * WIDTH):
        prefetch(x, first + i + far)
        prefetch(x, first + i + WIDTH + far)
        one, other = load_two(x, first + i)
        even = even + exp2(fma(one, scales, shift))
        odd = odd + exp2(fma(other, scales, shift))
    for i in range(whole, classes, WIDTH):
        prefetch(x, first + i + far)
        rest = load_first(x, first + i, classes - i, lowest)
        even = even + exp2(fma(rest, scales, shift))
    return even + odd


@inlined
def _four_maxima(spread: Any, at: int) -> Any:
    low = pair_maxima(load(spread, at), load(spread, at + WIDTH), 1)
    high = pair_maxima(load(spread, at + 2 * WIDTH), load(spread, at + 3 * WIDTH), 1)
    return pair_maxima(low, high, 2)


@inlined
def _fold_maxima(spread: Any) -> Any:
    """Maximum of each of the 16 registers in ``spread``, a lane each."""
    low = pair_maxima(_four_maxima(spread, 0), _four_maxima(spread, 4 * WIDTH), 4)
    high = pair_maxima(_four_maxima(spread, 8 * WIDTH), _four_maxima(spread, 12 * WIDTH), 4)
    return pair_maxima(low, high, 8)


@inlined
def _four_sums(spread: Any, at: int) -> Any:
    low = pair_sums(load(spread, at), load(spread, at + WIDTH), 1)
    high = pair_sums(load(spread, at + 2 * WIDTH), load(spread, at + 3 * WIDTH), 1)
    return pair_sums(low, high, 2)


@inlined
def _fold_sums(spread: Any) -> Any:
    """Sum of each of the 16 registers in ``spread``, a lane each."""
    low = pair_sums(_four_sums(spread, 0), _four_sums(spread, 4 * WIDTH), 4)
    high = pair_sums(_four_sums(spread, 8 * WIDTH), _four_sums(spread, 12 * WIDTH), 4)
    return pair_sums(low, high, 8)


@inlined
def _sum_rows(logits: Any, lo: int, count: int, spread: Any, rows: Any, scale: Any) -> None:
    """Write VALUE, MINUS and TOTAL of ``count`` rows from ``lo`` on."""
    x, classes, scales = logits.data, logits.classes, splat(scale)
    values, minus, totals = rows[VALUE], rows[MINUS], rows[TOTAL]
    together = min(max(TOGETHER // classes, 1), WIDTH)
    spread_sums = spread[WIDTH * WIDTH :]
    for start in range(0, count + together, together):
        for r in range(start, min(start + together, count)):
            first = place(logits, lo + r)
            store(spread, (r - start) * WIDTH, _row_maximum(x, first, classes))
            values[r] = element(x, first + max(int(rows[LABEL, r]), 0))
        if start < count:
            store(minus, start, held_shift(spread, _fold_maxima(spread), scale))
        if start == 0:
            continue
        # The sums of the rows before: meanwhile the maxima above are folded.
        before = start - together
        for r in range(before, min(start, count)):
            first = place(logits, lo + r)
            power = _row_sum(x, first, classes, 2 * together * classes, scales, minus[r])
            store(spread_sums, (r - before) * WIDTH, power)
        store(totals, before, _fold_sums(spread_sums))


@inlined
def _read_labels(labels: Any, numbers: Any, lo: int, count: int, classes: int, rows: Any) -> bool:
    """Write the labels ``numbers``, proved, to LABEL; True if all are classes or ignored."""
    wrong = 0
    for i in range(0, count, WIDTH):
        lanes, bits = prove_lanes(
            numbers, lo + i, count - i, classes, labels.mask, labels.ignores, labels.ignore_index
        )
        store(rows[LABEL], i, lanes)
        wrong |= bits
    return wrong == 0


@inlined
def _sum_columns(
    columns: Any, stride: int, logits: Any, lo: int, count: int, rows: Any, scale: Any
) -> None:
    """Write VALUE, MINUS and TOTAL of ``count`` positions from ``lo`` on, in ``columns``.

    Meanwhile the next tile's logits are prefetched: they are read when memory would be idle.
    """
    x, classes = logits.data, logits.classes
    scales, one, lowest = splat(scale), constant(columns, 1.0), constant(columns, -math.inf)
    zero = constant(columns, 0.0)
    by_class = BLOCK if logits.class_stride == 1 else logits.class_stride
    by_position = classes if logits.class_stride == 1 else 1
    after = place(logits, lo) + count * by_position
    for i in range(0, count, BLOCK):
        low, high = lowest, lowest
        for c in range(classes):
            low = maximum(load(columns, c * stride + i), low)
            high = maximum(load(columns, c * stride + i + WIDTH), high)
        low, high = held_shift(columns, low, scale), held_shift(columns, high, scale)
        label, other_label = load(rows[LABEL], i), load(rows[LABEL], i + WIDTH)
        total, other, value, other_value, number = zero, zero, zero, zero, zero
        for start in range(0, classes, CLASS_BLOCK):
            part, other_part = zero, zero
            for c in range(start, min(start + CLASS_BLOCK, classes)):
                prefetch(x, after + i * by_position + c * by_class)
                prefetch(x, after + i * by_position + c * by_class + WIDTH)
                a, b = load(columns, c * stride + i), load(columns, c * stride + i + WIDTH)
                part = part + exp2(fma(a, scales, low))
                other_part = other_part + exp2(fma(b, scales, high))
                value = where_equal(label, number, a, value)
                other_value = where_equal(other_label, number, b, other_value)
                number = number + one
            total, other = total + part, other + other_part
        store(rows[MINUS], i, low)
        store(rows[MINUS], i + WIDTH, high)
        store(rows[TOTAL], i, total)
        store(rows[TOTAL], i + WIDTH, other)
        store(rows[VALUE], i, value)
        store(rows[VALUE], i + WIDTH, other_value)


@inlined
def _loss(rows: Any, at: int, scales: Any) -> Any:
    """Loss in base 2 of 16 positions: 0 where the label is ignored, NaN where not known here."""
    total, minus = load(rows[TOTAL], at), load(rows[MINUS], at)
    zero, nan = splat(np.float32(0)), splat(np.float32(math.nan))
    t = fma(load(rows[VALUE], at), scales, minus)
    loss = maximum(zero, log2_above(total, t))
    if count_greater(splat(SMALL), loss):
        # A label whose power alone is the whole sum has log-probability 0 exactly, as in PyTorch.
        loss = where_equal(total, exp2(t), splat(np.float32(-0.0)), loss)
    loss = where_greater(splat(LARGEST_LOSS), loss, loss, nan)
    loss = where_greater(splat(np.float32(LARGEST_SHIFT**2)), minus * minus, loss, nan)
    return where_greater(load(rows[LABEL], at), splat(IGNORED), loss, zero)


@inlined
def _take_losses(rows: Any, count: int, options: Any, blocks: Any) -> bool:
    """Write LOSS and the sums of ``reduce.sum_blocks``, from the rows before it; True if all
    losses are known.
    """
    scales, losses, labels = splat(np.float32(options.scale)), rows[LOSS], rows[LABEL]
    # Two loops: processors look ahead over more positions in each.
    for i in range(0, count, WIDTH):
        store(losses, i, _loss(rows, i, scales))
    for i in range(count, (count + BLOCK - 1) // BLOCK * BLOCK):
        losses[i], labels[i] = 0.0, -1.0
    unit, ignored, odd = splat(SCALE * options.to_nats), splat(IGNORED), 0.0
    for i in range(0, count, BLOCK):
        low, high = load(losses, i), load(losses, i + WIDTH)
        a = unit * widen_low(low) + unit * widen_high(low)
        b = unit * widen_low(high) + unit * widen_high(high)
        total = sum_across(a + b)
        kept = count_greater(load(labels, i), ignored) + count_greater(
            load(labels, i + WIDTH), ignored
        )
        blocks[i // BLOCK, 0], blocks[i // BLOCK, 1] = total, SCALE * kept
        odd += total
    return odd == odd


@inlined
def _plain_losses(operands: Any, lo: Any, count: Any, own: Any) -> Any:
    _, logits, _, labels, options, results, _, _, scratch = operands
    rows, columns, classes = scratch.floats[own], scratch.columns[own], logits.classes
    if labels.int64s.size:
        right = _read_labels(labels, labels.int64s, lo, count, classes, rows)
    elif labels.int32s.size:
        right = _read_labels(labels, labels.int32s, lo, count, classes, rows)
    elif labels.int16s.size:
        right = _read_labels(labels, labels.int16s, lo, count, classes, rows)
    else:
        right = _read_labels(labels, labels.int8s, lo, count, classes, rows)
    if not right:
        return False
    scale, stride = np.float32(options.scale), (count + WIDTH - 1) // WIDTH * WIDTH + WIDTH
    if logits.class_stride == 1 and classes > MOST_TRANSPOSED:
        _sum_rows(logits, lo, count, columns, rows, scale)
    else:
        if logits.class_stride == 1:
            _transpose_rows(logits, lo, count, scratch.starts[own], columns, stride)
        else:
            _copy_planes(logits, lo, count, columns, stride)
        _sum_columns(columns, stride, logits, lo, count, rows, scale)
    return _take_losses(rows, count, options, results.blocks[lo // BLOCK :])


@by_type
def plain_losses(operands: Any, lo: Any, count: Any, own: Any) -> Any:
    """Write the losses of a tile to LOSS, and its sums to the blocks; True if all are known.

    A label that is neither a class nor ignored makes it False.
    """
    logits, options = operands.types[1], operands.types[4]
    if not _no_plain_type(logits, options):
        return _plain_losses

    def none(operands: Any, lo: Any, count: Any, own: Any) -> bool:
        return False

    return none


@inlined
def write_plain(results: Any, rows: Any, lo: int, count: int, to_nats: float) -> None:
    """Write the losses of a tile, all known, to the arrays that are wanted."""
    losses, labels = rows[LOSS], rows[LABEL]
    if results.per_element.size:
        out = results.per_element[lo : lo + count]
        for i in range(count):
            out[i] = np.float64(losses[i]) * to_nats
    if results.losses.size:
        for i in range(count):
            results.losses[lo + i] = np.float64(losses[i]) * to_nats
            results.weights[lo + i] = 1.0 if labels[i] >= 0 else 0.0


@inlined
def merge_plain(losses: Any, count: int, to_nats: float, wanted: Any) -> None:
    """Replace those of the losses ``wanted`` that are known here."""
    for i in range(count):
        if losses[i] == losses[i]:
            wanted[i] = np.float64(losses[i]) * to_nats
