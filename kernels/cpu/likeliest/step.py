"""Outputs about the likeliest classes of a position, and log-probabilities of chosen ones.

Compiled only into the kernels of calls that ask for some of them: ``operands.likeliest`` is None
in all others.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined
from kernels.cpu.likeliest.top import bound_of_row, select_largest
from kernels.cpu.logit import capped, exact
from kernels.cpu.outputs.rows import log_prob_of
from kernels.cpu.packed import unpacked
from kernels.cpu.sums.maxima import largest_of, largest_other, take_maxima
from kernels.cpu.sums.short import LARGEST as SHORT
from kernels.cpu.tile import CAREFUL, LOG2, MINUS, PEAK, TOTAL
from kernels.formula import capped_softly, scaled_gap
from kernels.plan import place
from kernels.simd import (
    constant,
    element,
    exp2,
    fma,
    knows_negatives,
    load_first,
    max_across,
    store_first,
    value_of,
    where_equal,
    width,
)


@inlined
def _probability(x: Any, logit: float, scratch: Any, at: int, options: Any) -> float:
    """Softmax at a logit without the cap, as ``outputs.rows.log_prob_of`` gives it."""
    value = capped(x, constant(x, logit), options.cap)
    total = constant(x, scratch[TOTAL, at])
    power = exp2(fma(value, constant(x, options.scale), constant(x, scratch[MINUS, at])))
    return float(max_across(where_equal(power, total, constant(x, 1.0), power / total)))


@inlined
def _capped_one(x: Any, raw: float, cap: Any) -> float:
    """``logit.logit_at`` of an element that was read before."""
    if cap is None:
        return raw
    return float(max_across(capped(x, constant(x, raw), cap)))


@inlined
def _take_log_probs(
    x: Any, out: Any, first: int, count: int, scratch: Any, at: int, options: Any
) -> None:
    """Replace ``count`` logits without the cap in ``out`` by their log-probabilities; the bits are
    those of the output ``log_probs``.
    """
    scales, minus = constant(x, options.scale), constant(x, scratch[MINUS, at])
    total, log2_total = constant(x, scratch[TOTAL, at]), constant(x, scratch[LOG2, at])
    for i in range(first, first + count, width(x)):
        left = first + count - i
        value = capped(x, load_first(out, i, left, constant(x, 0.0)), options.cap)
        t = fma(value, scales, minus)
        store_first(out, i, left, log_prob_of(x, value, t, total, log2_total, options))


@inlined
def _read_chosen(logits: Any, position: int, likeliest: Any) -> None:
    """Write the logits of the chosen classes where their log-probabilities belong."""
    x, first, each = logits.data, place(logits, position), likeliest.chosen_each
    row = position * each if likeliest.chosen.size > each else 0
    for i in range(each):
        c = likeliest.chosen[row + i]
        likeliest.chosen_log_probs[position * each + i] = element(
            x, first + c * logits.class_stride
        )


@called
def _find_likeliest(packed: Any, x: Any, first: int, position: int, y: int, worker: int) -> None:
    """Write the outputs of a position whose maxima were taken, or what ``finish_likeliest`` makes
    them of; its classes are contiguous in ``x``, from ``first`` on.
    """
    operands = unpacked(packed)
    options, likeliest, classes = operands.options, operands.likeliest, operands.logits.classes
    # The other outputs that compare classes need no label.
    labelled = likeliest.margin.size > 0 and y >= 0
    maxima, count = likeliest.maxima[worker], likeliest.top_k
    raw = element(x, first + y) if labelled else 0.0
    largest, other, bar = _compared(x, first, classes, y, raw, labelled, maxima, count)
    known = largest > 0.0 and other > 0.0 and value_of(x, bar) > 0.0  # NaN is not
    if not (known or knows_negatives(x)):
        take_maxima(x, first, classes, maxima)
        largest, other, bar = _compared(x, first, classes, y, raw, labelled, maxima, count)
    if likeliest.max_logit.size:
        likeliest.max_logit[position] = options.unit * _capped_one(x, largest, options.cap)
    if likeliest.confidence.size:
        likeliest.confidence[position] = largest
    if labelled:
        likeliest.margin[position] = _margin(x, raw, other, classes, options)
    if count > 0:
        values, places = likeliest.values[worker], likeliest.places[worker]
        select_largest(
            x, first, classes, maxima, bar, count, likeliest.marks[worker],
            likeliest.keys[worker], likeliest.ranks[worker], values, places,
        )  # fmt: skip
        row = position * count
        if likeliest.top_classes.size:
            for i in range(count):
                likeliest.top_classes[row + i] = places[i]
        if likeliest.top_log_probs.size:
            for i in range(count):
                likeliest.top_log_probs[row + i] = values[i]


@inlined
def _compared(
    x: Any, first: int, classes: int, y: int, raw: float, labelled: bool, maxima: Any, count: int,
) -> tuple[float, float, Any]:  # fmt: skip
    """The largest logit; the largest but for the label's, ``raw``; and a bound of ``count``."""
    bar = largest_of(x, maxima, classes)
    largest = value_of(x, bar)
    other = largest
    if labelled and raw >= largest:
        other = largest_other(x, first, classes, y, maxima)
    if count > 0:
        bar = bound_of_row(x, classes, maxima, count)
    return largest, other, bar


@inlined
def _margin(x: Any, raw: float, other: float, classes: int, options: Any) -> float:
    """Gap of two logits without the cap; infinite where there is one class only."""
    if classes == 1:
        return math.inf
    return scaled_gap(
        _capped_one(x, raw, options.cap), _capped_one(x, other, options.cap), options.unit
    )


@inlined
def _has_outputs(operands: Any, y: int) -> bool:
    """Test whether a position with label ``y``, -1 if it is ignored, has outputs but the margin."""
    return y >= 0 or operands.options.ignored_too or operands.soft.data.size > 0


@inlined
def _row_likeliest(packed: Any, operands: Any, position: int, y: int, worker: int) -> None:
    logits, likeliest = operands.logits, operands.likeliest
    x, first, classes = logits.data, place(logits, position), logits.classes
    if likeliest.compares:
        if classes <= SHORT:
            take_maxima(x, first, classes, likeliest.maxima[worker])
        _find_likeliest(packed, x, first, position, y, worker)


@inlined
def _plane_likeliest(packed: Any, operands: Any, position: int, y: int, worker: int) -> None:
    """``_row_likeliest`` of strided classes, which are gathered first."""
    logits, likeliest = operands.logits, operands.likeliest
    first, stride, row = place(logits, position), logits.class_stride, likeliest.row[worker]
    if likeliest.compares:
        for c in range(logits.classes):
            row[c] = element(logits.data, first + c * stride)
        take_maxima(row, 0, logits.classes, likeliest.maxima[worker])
        _find_likeliest(packed, row, 0, position, y, worker)


@inlined
def _capped_exactly(raw: float, cap: Any) -> float:
    """``logit.exact`` of an element that was read before."""
    if cap is None:
        return raw
    return capped_softly(raw, cap)


@inlined
def _comes_before(value: float, other: float) -> bool:
    """Order of the likeliest: NaNs, then the largest."""
    return value > other or (math.isnan(value) and not math.isnan(other))


@called
def _careful_likeliest(
    packed: Any, position: int, y: int, scratch: Any, at: int, worker: int
) -> None:
    """Write the outputs of a position that ``careful`` summed, in scalar float64."""
    operands = unpacked(packed)
    logits, options, likeliest = operands.logits, operands.options, operands.likeliest
    x, first, stride = logits.data, place(logits, position), logits.class_stride
    values, places = likeliest.values[worker], likeliest.places[worker]
    peak, logarithm = scratch[PEAK, at], math.log(scratch[TOTAL, at])
    unit, cap, count = options.unit, options.cap, likeliest.top_k
    largest, other, found = -math.inf, -math.inf, 0
    for c in range(logits.classes):
        raw = element(x, first + c * stride)
        if c == 0 or _comes_before(raw, largest):
            largest = raw
        if c != y and _comes_before(raw, other):
            other = raw
        if found < count or (count > 0 and _comes_before(raw, values[count - 1])):
            i = min(found, count - 1)
            while i > 0 and _comes_before(raw, values[i - 1]):
                values[i], places[i] = values[i - 1], places[i - 1]
                i -= 1
            values[i], places[i] = raw, c
            found = min(found + 1, count)
    if likeliest.max_logit.size:
        likeliest.max_logit[position] = unit * _capped_exactly(largest, cap)
    if likeliest.confidence.size:
        value = _capped_exactly(largest, cap)
        likeliest.confidence[position] = math.exp(scaled_gap(value, peak, unit) - logarithm)
    if likeliest.margin.size:
        own, gap = exact(x, first + max(y, 0) * stride, cap), math.inf
        if logits.classes > 1 or own != own:
            gap = scaled_gap(own, _capped_exactly(other, cap), unit)
        likeliest.margin[position] = gap if y >= 0 else math.nan
    for i in range(count):
        if likeliest.top_classes.size:
            likeliest.top_classes[position * count + i] = places[i]
        if likeliest.top_log_probs.size:
            value = _capped_exactly(values[i], cap)
            log_prob = scaled_gap(value, peak, unit) - logarithm
            likeliest.top_log_probs[position * count + i] = log_prob
    each = likeliest.chosen_each
    row = position * each if likeliest.chosen.size > each else 0
    for i in range(each if likeliest.chosen_log_probs.size else 0):
        value = exact(x, first + likeliest.chosen[row + i] * stride, cap)
        log_prob = scaled_gap(value, peak, unit) - logarithm
        likeliest.chosen_log_probs[position * each + i] = log_prob


@inlined
def likeliest_step(
    likeliest: Any, packed: Any, operands: Any, lo: int, count: int, label: Any, scratch: Any,
    at: int, worker: int,
) -> None:  # fmt: skip
    """Find the likeliest classes of ``count`` positions from ``lo`` on, which were just summed."""
    if likeliest is None:
        return
    logits = operands.logits
    for i in range(count):
        position, y = lo + i, label[at + i]
        if scratch[CAREFUL, at + i] != 0.0:
            _careful_likeliest(packed, position, y, scratch, at + i, worker)
            continue
        if likeliest.margin.size:
            likeliest.margin[position] = math.nan
        if not _has_outputs(operands, y):
            continue
        if logits.class_stride == 1:
            _row_likeliest(packed, operands, position, y, worker)
        else:
            _plane_likeliest(packed, operands, position, y, worker)
        if likeliest.chosen_log_probs.size:
            _read_chosen(logits, position, likeliest)


@called
def _finish(packed: Any, lo: int, count: int, label: Any, scratch: Any, at: int) -> None:
    operands = unpacked(packed)
    x, options, likeliest = operands.logits.data, operands.options, operands.likeliest
    for i in range(at, at + count):
        position = lo + i - at
        if scratch[CAREFUL, i] != 0.0 or not _has_outputs(operands, label[i]):
            continue
        if likeliest.confidence.size:
            largest = float(likeliest.confidence[position])
            likeliest.confidence[position] = _probability(x, largest, scratch, i, options)
        if likeliest.top_log_probs.size:
            out, each = likeliest.top_log_probs, likeliest.top_k
            _take_log_probs(x, out, position * each, each, scratch, i, options)
        if likeliest.chosen_log_probs.size:
            out, each = likeliest.chosen_log_probs, likeliest.chosen_each
            _take_log_probs(x, out, position * each, each, scratch, i, options)


@inlined
def finish_likeliest(
    likeliest: Any, packed: Any, lo: int, count: int, label: Any, scratch: Any, at: int
) -> None:
    """Turn logits that ``likeliest_step`` wrote into probabilities, once logarithms are taken: of
    many positions, one does not wait for another's.
    """
    if likeliest is not None:
        _finish(packed, lo, count, label, scratch, at)
