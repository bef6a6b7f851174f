"""Sums over classes of neighbouring positions, by the module that fits their layout."""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined
from kernels.cpu.careful import careful_position
from kernels.cpu.logit import logit_at
from kernels.cpu.packed import unpacked
from kernels.cpu.sums import planes, rows, short
from kernels.cpu.sums.planes import ABREAST, expect_few, soften_few, sum_abreast, sum_few, weigh_few
from kernels.cpu.sums.rows import sum_expected, sum_row, sum_soft, sum_weighted
from kernels.cpu.sums.short import sum_short_rows
from kernels.cpu.tile import (
    CAREFUL,
    EXPECTED,
    LEAST,
    MASS,
    MINUS,
    PUSH,
    SHARES,
    SLACK,
    SMOOTH,
    SPARE,
    TOTAL,
    VALUE,
)
from kernels.formula import FAR, LARGEST_SHIFT
from kernels.plan import place
from kernels.simd import width

SHORT, SHORT_LIMIT = short.LARGEST, short.LIMIT
GUESS, BLOCK_LIMIT = planes.GUESS, rows.BLOCK_LIMIT


@inlined
def step_size(logits: Any, position: int, rest: int, outputs: bool) -> int:
    """Number of positions, of the ``rest`` from ``position`` on, to sum in one step.

    A step is some short rows, one long row, or a few registers of plane positions, so that its
    ``outputs`` find the logits in cache.
    """
    if logits.class_stride != 1:
        run = logits.inner_size - position % logits.inner_size
        return min(ABREAST * width(logits.data), rest, run)
    return 1 if outputs and logits.classes > SHORT else rest


@inlined
def _smooth_row(logits: Any, soft: Any, options: Any, position: int, scratch: Any, at: int) -> None:
    """Write MASS, SMOOTH, SHARES and LEAST of one position with contiguous classes."""
    x, first, classes = logits.data, place(logits, position), logits.classes
    shift = -scratch[MINUS, at]
    if soft.data.size:
        mass, smooth, shares, least = sum_soft(
            x, first, classes, shift, soft.data, place(soft, position), options
        )
        scratch[MASS, at], scratch[SMOOTH, at] = mass, smooth
        scratch[SHARES, at], scratch[LEAST, at] = shares, least
        if options.focal > 0.0:
            expected = sum_expected(
                x, first, classes, shift, soft.data, place(soft, position), options
            )
            scratch[EXPECTED, at] = expected / scratch[TOTAL, at]
    else:
        scratch[SMOOTH, at] = sum_weighted(x, first, classes, shift, options)
        scratch[MASS, at] = options.mass


@inlined
def _beyond(scratch: Any, at: int, y: int, options: Any) -> bool:
    """Test whether terms of a loss that may be finite overflow. ``y`` may be an ignored label."""
    value = scratch[VALUE, at]
    if y >= 0 and value * options.scale < -FAR and value > -math.inf:
        return True
    return options.lane_weight.size and not abs(scratch[MASS, at] + scratch[SMOOTH, at]) < math.inf


@called
def _sum_exactly(packed: Any, position: int, y: int, scratch: Any, at: int, worker: int) -> bool:
    """Fill in ``scratch`` for one position with contiguous classes; True if by ``careful``.

    It takes operands from memory, ``packed``: all of them as arguments took 400 instructions.
    """
    operands = unpacked(packed)
    logits, soft, options = operands.logits, operands.soft, operands.options
    x, first = logits.data, place(logits, position)
    total, shift = sum_row(x, first, logits.classes, options, position, operands.likeliest, worker)
    if not math.isnan(total):
        scratch[TOTAL, at], scratch[MINUS, at] = total, -shift
        scratch[VALUE, at] = logit_at(x, first + max(y, 0), options.cap)
        if options.lane_weight.size:
            _smooth_row(logits, soft, options, position, scratch, at)
        if not _beyond(scratch, at, y, options):
            return False
    careful_position(logits, soft, position, y, options, scratch, at)
    return True


@inlined
def _sum_rows(
    packed: Any, logits: Any, soft: Any, options: Any, lo: int, count: int, label: Any, lanes: Any,
    scratch: Any, at: int, ignored_too: bool, worker: int,
) -> bool:  # fmt: skip
    odd = False
    if logits.classes > SHORT:
        for r in range(at, at + count):
            if label[r] >= 0 or ignored_too:
                odd |= _sum_exactly(packed, lo + r - at, label[r], scratch, r, worker)
        return odd
    good = sum_short_rows(logits, options, lo, count, label[at:], lanes, scratch, at)
    if good and not options.lane_weight.size:
        return False
    for r in range(at, at + count):
        known = scratch[TOTAL, r] < SHORT_LIMIT and abs(scratch[MINUS, r]) < LARGEST_SHIFT
        if known and options.lane_weight.size:
            _smooth_row(logits, soft, options, lo + r - at, scratch, r)
        if (label[r] >= 0 or ignored_too) and not (
            known and not _beyond(scratch, r, label[r], options)
        ):
            odd |= _sum_exactly(packed, lo + r - at, label[r], scratch, r, worker)
    return odd


@inlined
def _sum_group(
    logits: Any, first: int, options: Any, count: int, guess: int, totals: Any, minus: Any
) -> bool:
    """Sum ``count`` plane positions; return True if their guesses were good enough."""
    totals[: count + SLACK] = 0.0
    step = width(logits.data)
    if count == ABREAST * step:
        sum_abreast(logits, first, guess, options, totals, minus)
    else:
        for i in range(0, count, step):
            few = min(count - i, step)
            sum_few(logits, first + i, few, guess, options, totals[i:], minus[i:])
    good = True
    for i in range(count):
        good &= totals[i] < BLOCK_LIMIT
    return good


@inlined
def _smooth_group(
    logits: Any, first: int, soft: Any, soft_first: int, options: Any, count: int, scratch: Any,
    at: int,
) -> None:  # fmt: skip
    """Write MASS, SMOOTH, SHARES and LEAST of ``count`` plane positions."""
    step = width(logits.data)
    minus, masses, smooths = scratch[MINUS, at:], scratch[MASS, at:], scratch[SMOOTH, at:]
    shares, least = scratch[SHARES, at:], scratch[LEAST, at:]
    expected, totals = scratch[EXPECTED, at:], scratch[TOTAL, at:]
    masses[: count + SLACK] = 0.0
    expected[: count + SLACK] = 0.0
    smooths[: count + SLACK] = 0.0
    shares[: count + SLACK] = 0.0
    for i in range(0, count, step):
        few = min(count - i, step)
        if soft.data.size:
            soften_few(
                logits, first + i, soft, soft_first + i, few, minus[i:], options, masses[i:],
                smooths[i:], shares[i:], least[i:],
            )  # fmt: skip
            if options.focal > 0.0:
                expect_few(
                    logits, first + i, soft, soft_first + i, few, minus[i:], options, expected[i:]
                )
        else:
            weigh_few(logits, first + i, few, minus[i:], options, smooths[i:])
            masses[i : i + few] = options.mass
    for i in range(count):
        expected[i] /= totals[i]


@inlined
def _sum_planes(
    logits: Any, soft: Any, options: Any, lo: int, count: int, label: Any, scratch: Any,
    at: int, ignored_too: bool,
) -> bool:  # fmt: skip
    x, stride, first = logits.data, logits.class_stride, place(logits, lo)
    totals, minus, values = scratch[TOTAL, at:], scratch[MINUS, at:], scratch[VALUE, at:]
    if not _sum_group(logits, first, options, count, min(GUESS, logits.classes), totals, minus):
        # Replaces only the poor ones: a position's bits must not depend on its neighbours.
        exact_totals, exact_minus = scratch[SPARE], scratch[PUSH]
        _sum_group(logits, first, options, count, logits.classes, exact_totals, exact_minus)
        for i in range(count):
            if not totals[i] < BLOCK_LIMIT:
                totals[i], minus[i] = exact_totals[i], exact_minus[i]
    if options.lane_weight.size:
        _smooth_group(logits, first, soft, place(soft, lo), options, count, scratch, at)
    good, labels = True, label[at:]
    for i in range(count):
        values[i] = logit_at(x, first + i + max(labels[i], 0) * stride, options.cap)
    scale = options.scale
    for i in range(count):
        good &= (totals[i] == totals[i]) & (abs(minus[i]) < LARGEST_SHIFT)
        good &= values[i] * scale > -FAR
    if good and not options.lane_weight.size:
        return False
    odd = False
    for i in range(count):
        lost = math.isnan(totals[i]) or abs(minus[i]) == LARGEST_SHIFT
        if (labels[i] >= 0 or ignored_too) and (
            lost or _beyond(scratch, at + i, labels[i], options)
        ):
            careful_position(logits, soft, lo + i, labels[i], options, scratch, at + i)
            odd = True
    return odd


@inlined
def sum_step(
    packed: Any, operands: Any, lo: int, count: int, label: Any, scratch: Any, at: int, worker: int
) -> bool:
    """Fill in ``scratch``, from column ``at`` on, for ``count`` positions from ``lo`` on.

    That is TOTAL to SMOOTH, and CAREFUL. Positions whose label is ignored may be left out unless
    some output has a value there. The ``worker`` takes the maxima of long rows along, where
    ``operands.likeliest`` needs them. Returns True if ``careful`` computed any.
    """
    logits, soft, options = operands.logits, operands.soft, operands.options
    all_positions = soft.data.size > 0 or options.ignored_too
    scratch[CAREFUL, at : at + count] = 0.0
    if logits.class_stride == 1:
        lanes = operands.scratch.lanes[worker]
        return _sum_rows(
            packed, logits, soft, options, lo, count, label, lanes, scratch, at, all_positions,
            worker,
        )  # fmt: skip
    return _sum_planes(logits, soft, options, lo, count, label, scratch, at, all_positions)
