"""The sums over classes of a tile's positions, by the way that fits their layout."""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined
from kernels.cpu import planes, rows, short
from kernels.cpu.arguments import place
from kernels.cpu.careful import careful_position
from kernels.cpu.planes import ABREAST, soften_few, sum_abreast, sum_few, weigh_few
from kernels.cpu.rows import LARGEST_SHIFT, sum_row, sum_soft, sum_weighted
from kernels.cpu.short import sum_short_rows
from kernels.cpu.tile import CAREFUL, MASS, MINUS, SLACK, SMOOTH, TOTAL, VALUE
from kernels.simd import element, width

SHORT, SHORT_LIMIT = short.LARGEST, short.LIMIT
GUESS, BLOCK_LIMIT = planes.GUESS, rows.BLOCK_LIMIT


@called
def _sum_exactly(
    logits: Any, soft: Any, options: Any, position: int, y: int, scratch: Any, at: int
) -> None:
    """All that ``scratch`` holds of one position with contiguous classes."""
    x, classes = logits.data, logits.classes
    first = place(logits, position)
    total, shift = sum_row(x, first, classes, options.scale)
    if math.isnan(total):
        careful_position(logits, soft, position, y, options, scratch, at)
        return
    scratch[TOTAL, at], scratch[MINUS, at] = total, -shift
    scratch[VALUE, at] = element(x, first + max(y, 0))
    if options.lane_weight.size:
        _smooth_row(logits, soft, options, position, scratch, at)


@inlined
def _smooth_row(logits: Any, soft: Any, options: Any, position: int, scratch: Any, at: int) -> None:
    """MASS and SMOOTH of one position with contiguous classes."""
    x, first, classes = logits.data, place(logits, position), logits.classes
    shift = -scratch[MINUS, at]
    if soft.data.size:
        scratch[MASS, at], scratch[SMOOTH, at] = sum_soft(
            x, first, classes, shift, soft.data, place(soft, position), options
        )
    else:
        scratch[SMOOTH, at] = sum_weighted(x, first, classes, shift, options)
        scratch[MASS, at] = options.mass


@inlined
def _rows_tile(
    logits: Any, soft: Any, options: Any, lo: int, count: int, label: Any, lanes: Any, scratch: Any
) -> None:
    """The sums of ``count`` positions from ``lo`` on, each a contiguous row of classes."""
    if logits.classes > SHORT:
        for r in range(count):
            if label[r] >= 0 or soft.data.size:
                _sum_exactly(logits, soft, options, lo + r, label[r], scratch, r)
        return
    good = sum_short_rows(logits, options.scale, lo, count, label, lanes, scratch)
    if not good or options.lane_weight.size:
        for r in range(count):
            if scratch[TOTAL, r] < SHORT_LIMIT and abs(scratch[MINUS, r]) < LARGEST_SHIFT:
                if options.lane_weight.size:
                    _smooth_row(logits, soft, options, lo + r, scratch, r)
            elif label[r] >= 0 or soft.data.size:
                _sum_exactly(logits, soft, options, lo + r, label[r], scratch, r)


@inlined
def _sum_group(
    logits: Any, first: int, scale: float, count: int, guess: int, totals: Any, minus: Any
) -> bool:
    """Sums ``count`` plane positions; whether their guesses were good enough."""
    totals[: count + SLACK] = 0.0
    step = width(logits.data)
    if count == ABREAST * step:
        sum_abreast(logits, first, guess, scale, totals, minus)
    else:
        for i in range(0, count, step):
            few = min(count - i, step)
            sum_few(logits, first + i, few, guess, scale, totals[i:], minus[i:])
    good = True
    for i in range(count):
        good &= totals[i] < BLOCK_LIMIT
    return good


@inlined
def _smooth_group(
    logits: Any, first: int, soft: Any, soft_first: int, options: Any, count: int, scratch: Any
) -> None:
    """MASS and SMOOTH of ``count`` plane positions, from ``scratch``'s first column on."""
    step = width(logits.data)
    scratch[MASS, : count + SLACK] = 0.0
    scratch[SMOOTH, : count + SLACK] = 0.0
    for i in range(0, count, step):
        few, minus, smooths = min(count - i, step), scratch[MINUS, i:], scratch[SMOOTH, i:]
        if soft.data.size:
            masses = scratch[MASS, i:]
            soften_few(
                logits, first + i, soft, soft_first + i, few, minus, options, masses, smooths
            )
        else:
            weigh_few(logits, first + i, few, minus, options, smooths)
            scratch[MASS, i : i + few] = options.mass


@inlined
def _planes_tile(
    logits: Any, soft: Any, options: Any, lo: int, count: int, label: Any, scratch: Any
) -> None:
    """The sums of ``count`` positions from ``lo`` on, whose neighbours are contiguous."""
    x, stride, group = logits.data, logits.class_stride, ABREAST * width(logits.data)
    done = 0
    while done < count:
        first = place(logits, lo + done)
        size = min(group, count - done, logits.inner_size - (lo + done) % logits.inner_size)
        totals, minus, values = scratch[TOTAL, done:], scratch[MINUS, done:], scratch[VALUE, done:]
        if not _sum_group(
            logits, first, options.scale, size, min(GUESS, logits.classes), totals, minus
        ):
            _sum_group(logits, first, options.scale, size, logits.classes, totals, minus)
        if options.lane_weight.size:
            _smooth_group(
                logits, first, soft, place(soft, lo + done), options, size, scratch[:, done:]
            )
        good, labels = True, label[done:]
        for i in range(size):
            values[i] = element(x, first + i + max(labels[i], 0) * stride)
            good &= (totals[i] == totals[i]) & (abs(minus[i]) < LARGEST_SHIFT)
        if not good:
            for i in range(size):
                if math.isnan(totals[i]) or abs(minus[i]) == LARGEST_SHIFT:
                    careful_position(
                        logits, soft, lo + done + i, labels[i], options, scratch, done + i
                    )
        done += size


@inlined
def sum_tile(
    logits: Any, soft: Any, options: Any, lo: int, count: int, label: Any, lanes: Any, scratch: Any
) -> None:
    """Fills in the sums of ``count`` positions from ``lo`` on: TOTAL to SMOOTH, and CAREFUL."""
    scratch[CAREFUL, :count] = 0.0
    if logits.class_stride == 1:
        _rows_tile(logits, soft, options, lo, count, label, lanes, scratch)
    else:
        _planes_tile(logits, soft, options, lo, count, label, scratch)
