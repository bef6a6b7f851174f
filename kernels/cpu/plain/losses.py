"""Losses of class indices, weighed or not, in float32 from the logits to the loss.

Sums of exponentials are those of ``sums.rows``, with the exact maximum as their shift: the classes
of a position are in L1 when they are read again, and no sum has to be done twice. ``plain.rows``,
``plain.transposed`` and ``plain.planes`` sum the kinds of layouts.

A position whose loss float32 cannot hold (NaN, infinities, shifts beyond ``LARGEST_SHIFT``) gets
the loss NaN here: ``loss.cross_entropy`` computes its tile again, and takes the position from
there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from kernels.compiled import by_type, called, inlined
from kernels.cpu.plain.planes import sum_planes
from kernels.cpu.plain.rows import sum_plain_rows
from kernels.cpu.plain.scratch import (
    LABEL,
    LOSS,
    MINUS,
    MOST_IN_PLANES,
    MOST_IN_ROWS,
    MOST_TRANSPOSED,
    TOTAL,
    VALUE,
    WIDTH,
)
from kernels.cpu.plain.transposed import sum_transposed
from kernels.formula import LARGEST_SHIFT, sample_of
from kernels.reduce import BLOCK, SCALE
from kernels.simd import (
    address_at,
    are_classes,
    count_greater,
    exp2,
    fma,
    load,
    load_labels,
    log2_above,
    max_across,
    maximum,
    merge_high,
    merge_low,
    no_label,
    pair_sums,
    prove_lanes,
    splat,
    store,
    sum_across,
    where_equal,
    where_greater,
    widen_high,
    widen_low,
)

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
            and options.lane_weight.size == 0
            and options.z_loss == 0.0
            and options.focal == 0.0
        )

    return without_options


# What the labels of a tile are.
_WRONG, _SOME_IGNORED, _ALL_CLASSES = range(3)


@inlined
def _read_labels(labels: Any, numbers: Any, lo: int, count: int, classes: int, rows: Any) -> int:
    """Write the labels ``numbers``, proved, to LABEL; ``_WRONG`` if one is no class nor ignored."""
    if count % WIDTH == 0:  # the common case: whole registers, and nothing is ignored
        largest = no_label(numbers)
        for i in range(0, count, WIDTH):
            lanes, largest = load_labels(numbers, lo + i, largest)
            store(rows[LABEL], i, lanes)
        ignoring = labels.ignores & (labels.ignore_index >= 0) & (labels.ignore_index < classes)
        if are_classes(numbers, largest, classes, labels.mask) and not ignoring:
            return _ALL_CLASSES
    wrong = 0
    for i in range(0, count, WIDTH):
        lanes, bits = prove_lanes(
            numbers, lo + i, count - i, classes, labels.mask, labels.ignores, labels.ignore_index
        )
        store(rows[LABEL], i, lanes)
        wrong |= bits
    return _SOME_IGNORED if wrong == 0 else _WRONG


@inlined
def _loss(rows: Any, at: int, scales: Any) -> Any:
    """Loss in base 2 of 16 positions; NaN, or anything for a large shift, where not known here."""
    total, t = load(rows[TOTAL], at), fma(load(rows[VALUE], at), scales, load(rows[MINUS], at))
    loss = maximum(splat(np.float32(0)), log2_above(total, t))
    if count_greater(splat(SMALL), loss):
        # A label whose power alone is the whole sum has log-probability 0 exactly, as in PyTorch.
        loss = where_equal(total, exp2(t), splat(np.float32(-0.0)), loss)
    return loss


@called
def _mark_unknown(rows: Any, count: int) -> bool:
    """Write 0 to LOSS where the label is ignored, NaN where float32 cannot hold what is needed.

    Returns True if all are known.
    """
    nan, most = splat(np.float32(math.nan)), splat(np.float32(LARGEST_SHIFT**2))
    zero, known = splat(np.float32(0)), 0
    for i in range(0, count, WIDTH):
        loss, minus, kept = load(rows[LOSS], i), load(rows[MINUS], i), load(rows[LABEL], i)
        loss = where_greater(splat(LARGEST_LOSS), loss, loss, nan)
        loss = where_greater(most, minus * minus, loss, nan)
        loss = where_greater(kept, splat(IGNORED), loss, zero)
        store(rows[LOSS], i, loss)
        known += count_greater(splat(LARGEST_LOSS), loss)
    return known == (count + WIDTH - 1) // WIDTH * WIDTH


@inlined
def _half_sum(losses: Any, at: int, unit: Any) -> Any:
    """Sums of a block of losses that are 8 apart, in nats and float64."""
    low, high = load(losses, at), load(losses, at + WIDTH)
    a = unit * widen_low(low) + unit * widen_high(low)
    return a + (unit * widen_low(high) + unit * widen_high(high))


@inlined
def _eight_sums(losses: Any, at: int, unit: Any) -> Any:
    """``reduce.sum_blocks``' sums of eight blocks of losses, in order, in their lanes."""
    a = pair_sums(_half_sum(losses, at, unit), _half_sum(losses, at + 4 * BLOCK, unit), 4)
    at += BLOCK
    b = pair_sums(_half_sum(losses, at, unit), _half_sum(losses, at + 4 * BLOCK, unit), 4)
    at += BLOCK
    c = pair_sums(_half_sum(losses, at, unit), _half_sum(losses, at + 4 * BLOCK, unit), 4)
    at += BLOCK
    d = pair_sums(_half_sum(losses, at, unit), _half_sum(losses, at + 4 * BLOCK, unit), 4)
    return pair_sums(pair_sums(a, c, 2), pair_sums(b, d, 2), 1)


@inlined
def _take_losses(rows: Any, count: int, options: Any, blocks: Any, all_classes: bool) -> bool:
    """Write LOSS and the sums of ``reduce.sum_blocks``, from the rows before it; True if all
    losses are known.
    """
    scales, losses, labels = splat(np.float32(options.scale)), rows[LOSS], rows[LABEL]
    minus, largest = rows[MINUS], splat(np.float32(0))
    # Two loops: processors look ahead over more positions in each.
    for i in range(0, count, WIDTH):
        store(losses, i, _loss(rows, i, scales))
        shift = load(minus, i)
        largest = maximum(shift * shift, largest)
    known = True
    if not (all_classes and max_across(largest) < LARGEST_SHIFT**2):
        known = _mark_unknown(rows, count)
    for i in range(count, (count + BLOCK - 1) // BLOCK * BLOCK):
        losses[i], labels[i] = 0.0, -1.0
    unit, ignored = splat(SCALE * options.to_nats), splat(IGNORED)
    most, whole = splat(SCALE * options.to_nats * LARGEST_LOSS), 0
    if all_classes:
        whole, all_kept = count // (8 * BLOCK) * (8 * BLOCK), splat(SCALE * BLOCK)
        for i in range(0, whole, 8 * BLOCK):
            sums = _eight_sums(losses, i, unit)
            store(blocks, i // BLOCK * 2, merge_low(sums, all_kept))
            store(blocks, i // BLOCK * 2 + 8, merge_high(sums, all_kept))
            known &= count_greater(most, sums) == 8
    for i in range(whole, count, BLOCK):
        total = sum_across(_half_sum(losses, i, unit))
        kept = count_greater(load(labels, i), ignored)
        kept += count_greater(load(labels, i + WIDTH), ignored)
        blocks[i // BLOCK, 0], blocks[i // BLOCK, 1] = total, SCALE * kept
        known &= total < SCALE * options.to_nats * LARGEST_LOSS
    # A sum may be large without a loss that is.
    return known or _mark_unknown(rows, count)


@inlined
def _plain_losses(operands: Any, lo: Any, count: Any, own: Any) -> Any:
    logits, labels, options = operands.logits, operands.labels, operands.options
    results, scratch = operands.results, operands.scratch
    rows, columns, classes = scratch.floats[own], scratch.columns[own], logits.classes
    if labels.int64s.size:
        kinds = _read_labels(labels, labels.int64s, lo, count, classes, rows)
        next_labels = address_at(labels.int64s, lo + count), 8
    elif labels.int32s.size:
        kinds = _read_labels(labels, labels.int32s, lo, count, classes, rows)
        next_labels = address_at(labels.int32s, lo + count), 4
    elif labels.int16s.size:
        kinds = _read_labels(labels, labels.int16s, lo, count, classes, rows)
        next_labels = address_at(labels.int16s, lo + count), 2
    else:
        kinds = _read_labels(labels, labels.int8s, lo, count, classes, rows)
        next_labels = address_at(labels.int8s, lo + count), 1
    if kinds == _WRONG:
        return False
    scale, stride = np.float32(options.scale), (count + WIDTH - 1) // WIDTH * WIDTH + WIDTH
    if logits.class_stride != 1:
        sum_planes(logits, lo, count, columns, stride, rows, scale, next_labels)
    elif classes > MOST_TRANSPOSED:
        sum_plain_rows(logits, lo, count, columns, rows, scale, next_labels)
    else:
        starts = scratch.starts[own]
        sum_transposed(logits, lo, count, starts, columns, rows, scale, next_labels)
    return _take_losses(rows, count, options, results.blocks[lo // BLOCK :], kinds == _ALL_CLASSES)


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
def write_plain(results: Any, losses: Any, lo: int, count: int, to_nats: float) -> None:
    """Write the losses of a tile, all known and not weighed, to the array that is wanted."""
    if results.per_element.size:
        out = results.per_element[lo : lo + count]
        for i in range(count):
            out[i] = np.float64(losses[i]) * to_nats


@inlined
def weigh_plain(
    rows: Any, labels: Any, lo: int, count: int, options: Any, losses: Any, weights: Any
) -> None:
    """Write the losses that are known, and their weights, to ``losses`` and ``weights``.

    The weights are those of ``formula.loss_of``.
    """
    for i in range(count):
        loss, y = rows[LOSS, i], int(rows[LABEL, i])
        if loss == loss:
            weight = 1.0 if y >= 0 else 0.0
            if options.weight.size:
                weight *= options.weight[max(y, 0)]
            sample = sample_of(labels, lo + i)
            losses[i] = weight * (np.float64(loss) * options.to_nats) * sample
            weights[i] = weight * sample
