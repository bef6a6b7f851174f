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
    minimum,
    narrow,
    splat,
    store,
    where_equal,
    widen_low,
)

# Rows of float64 scratch. Of the logits: sum(2**t), the negated shift, the label's logit. For
# smoothed or soft labels: sum(q) and sum(q * t). Then log2 of the first, the label's
# log-probability in base 2, its loss, and that loss's share in a mean's denominator; last, 1 for
# the positions that ``careful`` took, and their largest logit.
TOTAL, MINUS, VALUE, MASS, SMOOTH, LOG2, LOG_PROB, LOSS, WEIGHT, CAREFUL, PEAK = range(11)
# Of the gradient: see ``outputs``. And a row for passing things on.
PUSH, PULL, OWN, SPARE = range(11, 15)
ROWS = 15
# Elements past a tile's last position that whole registers may write.
SLACK = 64
# Positions; a multiple of the reduction's block.
LARGEST = 8 * BLOCK


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
    for i in range(count - 1, -1, -1):
        value = label[i]
        if labels.ignores and value == labels.ignore_index:
            label[i] = -1
        elif value < 0 or value >= classes:
            label[i] = -1
            bad = i
    return bad


def _powers(gap: Any, like: Any) -> Any:
    """2**gap, float64, as the kernel computed it in the sum over the classes of ``like``."""
    raise NotImplementedError("for compiled code only")


@overload(_powers, jit_options=INLINED)
def _powers_overload(gap: Any, like: Any) -> Any:
    if like.dtype == types.float64:

        def powers_float64(gap: Any, like: Any) -> Any:
            return exp2(gap)

        return powers_float64

    def powers_float32(gap: Any, like: Any) -> Any:
        return widen_low(exp2(narrow(gap, gap)))

    return powers_float32


@inlined
def take_logarithms(scratch: Any, at: int, count: int, scale: float, like: Any) -> None:
    """LOG2 and LOG_PROB from TOTAL, MINUS and VALUE, a register at a time.

    A label whose power alone is the whole sum has log-probability 0 exactly, as in PyTorch.
    """
    totals, shifts, values = scratch[TOTAL], scratch[MINUS], scratch[VALUE]
    logs, results = scratch[LOG2], scratch[LOG_PROB]
    zero = splat(0.0)
    for i in range(at, at + count, 8):
        total = load(totals, i)
        gap = fma(load(values, i), splat(scale), load(shifts, i))
        # NaN is lost in log2's bit tricks, but not in this product.
        logarithm = log2(total) + total * zero
        store(logs, i, logarithm)
        hit = where_equal(total, _powers(gap, like), zero, gap - logarithm)
        store(results, i, minimum(zero, hit))


@inlined
def log_sum_exp(scratch: Any, at: int, options: Any) -> float:
    """The natural logarithm of the sum of the exponentials of one position's logits."""
    if scratch[CAREFUL, at] != 0.0 and math.isinf(scratch[PEAK, at]):
        return scratch[PEAK, at]
    if scratch[CAREFUL, at] != 0.0:
        return options.unit * scratch[PEAK, at] + math.log(scratch[TOTAL, at])
    return (scratch[LOG2, at] - scratch[MINUS, at]) * options.to_nats


@inlined
def weigh_tile(
    scratch: Any, label: Any, soft: bool, labels: Any, lo: int, count: int, options: Any
) -> None:
    """LOSS and WEIGHT (a position's share of a mean's denominator) from the rest."""
    log_probs, logs, smooths = scratch[LOG_PROB], scratch[LOG2], scratch[SMOOTH]
    losses, weights, masses = scratch[LOSS], scratch[WEIGHT], scratch[MASS]
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
            loss += options.z_loss * log_sum_exp(scratch, i, options) ** 2
        if labels.sample_weight.size:
            loss *= labels.sample_weight[lo + i]
            weight *= labels.sample_weight[lo + i]
        losses[i] = loss
        weights[i] = weight
