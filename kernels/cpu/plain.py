"""Losses of class indices, weighed or not, in float32 from the logits to the loss.

Sums of exponentials are those of ``rows``, with the exact maximum as their shift: the classes of a
position are in L1 when they are read again, and no sum has to be done twice. ``plain_rows`` and
``plain_columns`` sum the two kinds of layouts.

A position whose loss float32 cannot hold (NaN, infinities, shifts beyond ``LARGEST_SHIFT``) gets
the loss NaN here: ``loss`` computes its tile again, and takes the position from there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from kernels.compiled import by_type, inlined
from kernels.cpu.plain_columns import copy_planes, sum_columns, transpose_rows
from kernels.cpu.plain_planes import runs_are_long, sum_planes
from kernels.cpu.plain_rows import sum_plain_rows
from kernels.cpu.plain_scratch import (
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
from kernels.formula import LARGEST_SHIFT, sample_of
from kernels.reduce import BLOCK, SCALE
from kernels.simd import (
    count_greater,
    exp2,
    fma,
    load,
    log2_above,
    maximum,
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
    logits, labels, options = operands.logits, operands.labels, operands.options
    results, scratch = operands.results, operands.scratch
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
    if logits.class_stride != 1 and runs_are_long(logits, lo, count):
        sum_planes(logits, lo, count, columns, rows, scale)
    elif logits.class_stride == 1 and classes > MOST_TRANSPOSED:
        sum_plain_rows(logits, lo, count, columns, rows, scale)
    else:
        if logits.class_stride == 1:
            transpose_rows(logits, lo, count, scratch.starts[own], columns, stride)
        else:
            copy_planes(logits, lo, count, columns, stride)
        sum_columns(columns, stride, logits, lo, count, rows, scale)
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
