"""Tiles: some neighbouring positions each, and the rows of scratch that a worker keeps of one.

Sums over classes become losses for a whole tile at a time, so that logarithms run in SIMD: with
ten classes a scalar log takes longer than the exponentials.
"""

from __future__ import annotations

import math
from typing import Any

from numba import types

from kernels.compiled import by_type, inlined
from kernels.formula import (
    Known,
    careful_log_sum_exp,
    is_distribution,
    log_sum_exp_of,
    loss_of,
    sample_of,
)
from kernels.simd import (
    exp2,
    fma,
    load,
    log2,
    log2_float32,
    minimum,
    narrow,
    splat,
    store,
    where_equal,
    widen_high,
    widen_low,
)

# Rows of float64 scratch. Of the logits: sum(2**t), the negated shift, the label's logit. For
# smoothed or soft labels: sum(q) and sum(q * t) of ``sums.rows.sum_soft``. Then log2 of TOTAL, the
# label's log-probability in base 2, the loss, and its share of a mean's denominator; last, 1 for
# the positions that ``careful`` computed, and their largest logit. VALUE and SMOOTH of these have
# other units: see ``careful.careful_position``.
TOTAL, MINUS, VALUE, MASS, SMOOTH, LOG2, LOG_PROB, LOSS, WEIGHT, CAREFUL, PEAK = range(11)
# Of the gradient: ``formula.gradient_factors``. SPARE is for passing values on.
PUSH, PULL, OWN, SPARE = range(11, 15)
# Of class probabilities: their sum, and the least of them and 0. Of a focal factor of these: the
# sum of their products with the softmax, and ``formula.gradient_factors``' lean.
SHARES, LEAST, EXPECTED, LEAN = range(15, 19)
ROWS = 19
# Elements past a tile's last position that whole registers may write.
SLACK = 64


@inlined
def read_labels(labels: Any, first: int, count: int, label: Any) -> None:
    """Copy the tile's labels, of any width, to the int64 ``label``."""
    stop = first + count
    if labels.int64s.size:
        long = labels.int64s[first:stop]
        for i in range(count):
            label[i] = long[i]
    elif labels.int32s.size:
        word = labels.int32s[first:stop]
        for i in range(count):
            label[i] = word[i] & labels.mask
    elif labels.int16s.size:
        short = labels.int16s[first:stop]
        for i in range(count):
            label[i] = short[i] & labels.mask
    else:
        byte = labels.int8s[first:stop]
        for i in range(count):
            label[i] = byte[i] & labels.mask


@inlined
def prove_labels(label: Any, count: int, classes: int, labels: Any) -> int:
    """Prove that every label may be used as an index: ignored ones become -1.

    Returns the place in the tile of the first label that is neither a class nor ignored, or
    ``count``; such labels become -1 too, so nothing is ever read with them.
    """
    bad = count
    for i in range(count):
        value = label[i]
        ignored = labels.ignores & (value == labels.ignore_index)
        possible = (value >= 0) & (value < classes) & (not ignored)
        bad = min(bad, count if possible | ignored else i)
        label[i] = value if possible else -1
    return bad


@inlined
def prove_shares(scratch: Any, labels: Any, lo: int, count: int, tolerance: float) -> int:
    """Prove that class probabilities are not negative, and sum to 1 within ``tolerance``.

    Returns the place in the tile of the first position where they do not, or ``count``. Positions
    of sample weight 0 are passed over: that weight is how a caller leaves rows out.
    """
    shares, least, samples = scratch[SHARES], scratch[LEAST], labels.sample_weight
    bad = count
    for i in range(count):
        right = is_distribution(shares[i], least[i], tolerance)
        if samples.size:
            right |= samples[lo + i] == 0.0
        bad = min(bad, count if right else i)
    return bad


@by_type
def _powers(gap: Any, other: Any, like: Any) -> Any:
    """2**gap and 2**other, float64, as computed in the sum over the classes of ``like``."""
    if like.dtype == types.float64:

        def powers_float64(gap: Any, other: Any, like: Any) -> Any:
            return exp2(gap), exp2(other)

        return powers_float64

    def powers_float32(gap: Any, other: Any, like: Any) -> Any:
        powers = exp2(narrow(gap, other))
        return widen_low(powers), widen_high(powers)

    return powers_float32


@by_type
def _log2(total: Any, like: Any) -> Any:
    """log2 of sums over the classes of ``like``, as precise as these are."""
    if like.dtype == types.float64:

        def log2_of_float64s(total: Any, like: Any) -> Any:
            return log2(total)

        return log2_of_float64s

    def log2_of_float32s(total: Any, like: Any) -> Any:
        return log2_float32(total)

    return log2_of_float32s


@inlined
def _take_register(scratch: Any, at: int, gap: Any, power: Any, like: Any) -> None:
    zero, total = splat(0.0), load(scratch[TOTAL], at)
    # log2's bit tricks lose NaN; this product keeps it.
    logarithm = _log2(total, like) + total * zero
    store(scratch[LOG2], at, logarithm)
    hit = where_equal(total, power, zero, gap - logarithm)
    store(scratch[LOG_PROB], at, minimum(zero, hit))


@inlined
def take_logarithms(scratch: Any, at: int, count: int, scale: float, like: Any) -> None:
    """Write LOG2 and LOG_PROB from TOTAL, MINUS and VALUE, two registers at a time.

    A label whose power alone is the whole sum has log-probability 0 exactly, as in PyTorch.
    """
    shifts, values, scales = scratch[MINUS], scratch[VALUE], splat(scale)
    for i in range(at, at + count, 16):
        low = fma(load(values, i), scales, load(shifts, i))
        high = fma(load(values, i + 8), scales, load(shifts, i + 8))
        power, other = _powers(low, high, like)
        _take_register(scratch, i, low, power, like)
        _take_register(scratch, i + 8, high, other, like)


@inlined
def log_sum_exp(scratch: Any, at: int, options: Any) -> float:
    """TINY times the natural logarithm of the sum of the exponentials of one position's logits."""
    if scratch[CAREFUL, at] != 0.0:
        return careful_log_sum_exp(scratch[PEAK, at], math.log(scratch[TOTAL, at]), options.unit)
    return log_sum_exp_of(scratch[LOG2, at], -scratch[MINUS, at], options.to_nats)


@inlined
def _weigh_plainly(
    log_probs: Any, label: Any, count: int, to_nats: float, losses: Any, weights: Any
) -> None:
    """``weigh_tile`` without options, which LLVM vectorises; the general loop took 15 % of the time
    of 10 classes.
    """
    for i in range(count):
        kept = label[i] >= 0
        losses[i] = -(log_probs[i] * to_nats) if kept else 0.0
        weights[i] = 1.0 if kept else 0.0


@inlined
def weigh_tile(
    scratch: Any, label: Any, soft: bool, labels: Any, lo: int, count: int, options: Any
) -> None:
    """Write LOSS and WEIGHT (a position's share of a mean's denominator) from the other rows."""
    log_probs, logs, minus = scratch[LOG_PROB], scratch[LOG2], scratch[MINUS]
    masses, smooths = scratch[MASS], scratch[SMOOTH]
    losses, weights, expected = scratch[LOSS], scratch[WEIGHT], scratch[EXPECTED]
    if not (
        soft
        or options.weight.size
        or options.lane_weight.size
        or options.z_loss > 0.0
        or options.focal > 0.0
        or labels.sample_weight.size
    ):
        _weigh_plainly(log_probs, label, count, options.to_nats, losses, weights)
        return
    for i in range(count):
        # Positions that ``careful`` computed are weighed again by ``weigh_careful``.
        logarithm = log_sum_exp_of(logs[i], -minus[i], options.to_nats)
        known = Known(log_probs[i], logs[i], logarithm, masses[i], smooths[i], expected[i])
        sample = sample_of(labels, lo + i)
        losses[i], weights[i] = loss_of(known, label[i], soft, sample, options)
