"""A tile: some neighbouring positions, and the rows of scratch that a worker keeps of them.

The finish turns sums over classes into losses, for a whole tile at a time, so that logarithms
run in SIMD: with ten classes a scalar log takes longer than the exponentials.
"""

from __future__ import annotations

import math
from typing import Any

from numba import types
from numba.extending import overload

from kernels.compiled import INLINED, inlined
from kernels.reduce import BLOCK
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
# smoothed or soft labels: sum(q) and sum(q * t). Then log2 of the first, the label's
# log-probability in base 2, its loss, and that loss's share in a mean's denominator; last, 1 for
# the positions that ``careful`` took, and their largest logit. Of these, VALUE and SMOOTH are other
# things: see ``careful``.
TOTAL, MINUS, VALUE, MASS, SMOOTH, LOG2, LOG_PROB, LOSS, WEIGHT, CAREFUL, PEAK = range(11)
# Of the gradient: see ``outputs``. And a row for passing things on.
PUSH, PULL, OWN, SPARE = range(11, 15)
# Of a row of class probabilities: their sum, and the least of them and 0.
SHARES, LEAST = range(15, 17)
ROWS = 17
# Elements past a tile's last position that whole registers may write.
SLACK = 64
# Positions; a multiple of the reduction's block.
LARGEST = 8 * BLOCK
# Labels whose exponents of 2 are beyond -FAR are left to ``careful``: float64 ends soon after, in
# base 2 before it does in nats.
FAR = 2.0**900
# What losses of ``careful`` are made of is kept times this power of two, exactly: a gap of 2**1025
# over the least temperature, 1e-30, is below 2**1125, and weights may make a finite loss of it.
TINY = 2.0**-128


@inlined
def read_labels(labels: Any, first: int, count: int, label: Any) -> None:
    """The tile's labels, whatever their width, as int64."""
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
    """Proves that every label may be used as an index: marks ignored ones with -1.

    Returns the place in the tile of the first label that is neither a class nor ignored, or
    ``count``; such labels are marked like ignored ones, so nothing is ever read with them.
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
    """Proves that class probabilities are none below 0, and sum to 1 within ``tolerance``.

    Returns the place in the tile of the first position where they do not, or ``count``. Positions
    of sample weight 0 are not looked at: they are how rows are left out.
    """
    shares, least, samples = scratch[SHARES], scratch[LEAST], labels.sample_weight
    bad = count
    for i in range(count):
        right = (abs(shares[i] - 1.0) <= tolerance) & (least[i] >= 0.0)  # NaN is not
        if samples.size:
            right |= samples[lo + i] == 0.0
        bad = min(bad, count if right else i)
    return bad


def _powers(gap: Any, other: Any, like: Any) -> Any:
    """2**gap and 2**other, float64, as computed in the sum over the classes of ``like``."""
    raise NotImplementedError("for compiled code only")


@overload(_powers, jit_options=INLINED)
def _powers_overload(gap: Any, other: Any, like: Any) -> Any:
    if like.dtype == types.float64:

        def powers_float64(gap: Any, other: Any, like: Any) -> Any:
            return exp2(gap), exp2(other)

        return powers_float64

    def powers_float32(gap: Any, other: Any, like: Any) -> Any:
        powers = exp2(narrow(gap, other))
        return widen_low(powers), widen_high(powers)

    return powers_float32


def _log2(total: Any, like: Any) -> Any:
    """The logarithms of sums over the classes of ``like``, as precise as these are."""
    raise NotImplementedError("for compiled code only")


@overload(_log2, jit_options=INLINED)
def _log2_overload(total: Any, like: Any) -> Any:
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
    # NaN is lost in log2's bit tricks, but not in this product.
    logarithm = _log2(total, like) + total * zero
    store(scratch[LOG2], at, logarithm)
    hit = where_equal(total, power, zero, gap - logarithm)
    store(scratch[LOG_PROB], at, minimum(zero, hit))


@inlined
def take_logarithms(scratch: Any, at: int, count: int, scale: float, like: Any) -> None:
    """LOG2 and LOG_PROB from TOTAL, MINUS and VALUE, two registers at a time.

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
    if scratch[CAREFUL, at] != 0.0 and math.isinf(scratch[PEAK, at]):
        return scratch[PEAK, at]
    if scratch[CAREFUL, at] != 0.0:
        return TINY * options.unit * scratch[PEAK, at] + TINY * math.log(scratch[TOTAL, at])
    return TINY * ((scratch[LOG2, at] - scratch[MINUS, at]) * options.to_nats)


@inlined
def _weigh_plainly(
    log_probs: Any, label: Any, count: int, to_nats: float, losses: Any, weights: Any
) -> None:
    """The loop of ``weigh_tile`` without any option, which LLVM vectorises: it took 15 % of 10
    classes' time.
    """
    for i in range(count):
        kept = label[i] >= 0
        losses[i] = -(log_probs[i] * to_nats) if kept else 0.0
        weights[i] = 1.0 if kept else 0.0


@inlined
def weigh_tile(
    scratch: Any, label: Any, soft: bool, labels: Any, lo: int, count: int, options: Any
) -> None:
    """LOSS and WEIGHT (a position's share of a mean's denominator) from the rest."""
    log_probs, logs, smooths = scratch[LOG_PROB], scratch[LOG2], scratch[SMOOTH]
    losses, weights, masses = scratch[LOSS], scratch[WEIGHT], scratch[MASS]
    if not (
        soft
        or options.weight.size
        or options.lane_weight.size
        or options.z_loss > 0.0
        or labels.sample_weight.size
    ):
        _weigh_plainly(log_probs, label, count, options.to_nats, losses, weights)
        return
    for i in range(count):
        if label[i] < 0 and not soft:
            losses[i] = 0.0
            weights[i] = 0.0
            continue
        loss, weight = 0.0, 1.0
        if not soft:
            weight = options.weight[label[i]] if options.weight.size else 1.0
            loss = -(weight * (log_probs[i] * options.to_nats))
        if options.lane_weight.size:
            rest = logs[i] * masses[i] - smooths[i]
            if options.lane_weight.size == 1:  # one class, whose log-probability is exact
                rest = -(log_probs[i] * masses[i])
            rest *= options.to_nats
            loss = rest if soft else options.keep * loss + options.spread * rest
        if options.z_loss > 0.0:
            loss += options.z_loss * (log_sum_exp(scratch, i, options) / TINY) ** 2
        if labels.sample_weight.size:
            loss *= labels.sample_weight[lo + i]
            weight *= labels.sample_weight[lo + i]
        losses[i] = loss
        weights[i] = weight
