"""Kernel of the binary cross-entropy: a logit is a position, and there are no sums over classes.

With s(x) = log(1 + exp(x)), the loss of a label y is (1 - y) * s(x) + w * y * s(-x), where w is the
weight of positive labels. Neither term of s(x) = max(x, 0) + log1p(exp(-abs(x))) overflows or
cancels; a term whose factor is 0 counts as 0 even where s is infinite. Losses are computed in the
type that logits are computed in, and added in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from kernels.compiled import by_type, inlined, kernel_by_address
from kernels.cpu.packed import unpacked
from kernels.cpu.sums.planes import keep, narrowed
from kernels.cpu.tile import (
    LOSS,
    MASS,
    PUSH,
    SMOOTH,
    SPARE,
    VALUE,
    WEIGHT,
)
from kernels.reduce import BLOCK, sum_blocks
from kernels.simd import (
    ahead,
    at_least,
    constant,
    exp2,
    fma,
    load_first,
    log1p,
    lowest_bit,
    max_across,
    maximum,
    minimum,
    prefetch,
    prove_lanes,
    splat,
    store_first,
    where_equal,
    where_greater,
    width,
)

LOG2E = math.log2(math.e)
# log2(e) minus its float32, and minus its float64.
_LOG2E_REST = {32: LOG2E - 1.4426950216293335, 64: 2.0355273740931033e-17}
# exp(-800) is 0 in either type, and its exponent of 2 no problem of theirs.
_FAR = 800.0
_POSITIVE, _FACTOR, _TARGET = MASS, SMOOTH, VALUE
# Labels that are read at once.
LABELS = 16


@inlined
def spread_weights(weights: Any, run: int, lo: int, count: int, out: Any) -> None:
    """Write the weights of ``count`` elements from ``lo`` on: see ``binary.check``."""
    done = 0
    while done < count:
        at = (lo + done) // run
        if run == 1:
            first = at % weights.size
            size = min(count - done, weights.size - first)
            for i in range(size):
                out[done + i] = weights[first + i]
        else:
            weight = weights[at % weights.size]
            size = min(count - done, (at + 1) * run - lo - done)
            for i in range(size):
                out[done + i] = weight
        done += size


@inlined
def _index_targets(numbers: Any, labels: Any, lo: int, count: int, scratch: Any) -> int:
    """``_targets`` of the class indices ``numbers``."""
    targets, weights, bad = scratch[_TARGET], scratch[WEIGHT], count
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    for i in range(0, count, LABELS):
        label, wrong = prove_lanes(
            numbers, lo + i, count - i, 2, labels.mask, labels.ignores, labels.ignore_index
        )
        keep(targets, i, maximum(label, zero))
        keep(weights, i, where_greater(zero, label, zero, one))
        if wrong != 0:
            bad = min(bad, i + lowest_bit(wrong))
    return bad


@inlined
def _soft_targets(
    x: Any, ignore_index: int, checked: bool, lo: int, count: int, scratch: Any
) -> int:
    """``_targets`` of the probabilities ``x``; those of NaN or out of range are wrong, if
    ``checked``.
    """
    targets, weights, bad = scratch[_TARGET], scratch[WEIGHT], count
    zero, one = constant(x, 0.0), constant(x, 1.0)
    ignored = constant(x, float(ignore_index))
    if float(max_across(ignored)) != float(ignore_index):  # rounded: no label equals it
        ignored = constant(x, math.nan)
    for i in range(0, count, width(x)):
        value = load_first(x, lo + i, count - i, zero)
        keep(targets, i, where_equal(value, ignored, zero, value))
        keep(weights, i, where_equal(value, ignored, zero, one))
        if checked:
            left_out = at_least(value, ignored) & at_least(ignored, value)
            right = left_out | (at_least(value, zero) & at_least(one, value))
            wrong = ((1 << width(x)) - 1) & ~right
            if wrong != 0:
                bad = min(bad, i + lowest_bit(wrong))
    return bad


@inlined
def _targets(soft: Any, labels: Any, lo: int, count: int, scratch: Any, options: Any) -> int:
    """Write _TARGET, and WEIGHT: 0 where the label is ignored, else 1.

    Returns the place of the first label that is neither ignored nor in range, or ``count``.
    """
    if soft.data.size:
        checked = options.tolerance < math.inf
        return _soft_targets(soft.data, labels.ignore_index, checked, lo, count, scratch)
    if labels.int64s.size:
        return _index_targets(labels.int64s, labels, lo, count, scratch)
    if labels.int32s.size:
        return _index_targets(labels.int32s, labels, lo, count, scratch)
    if labels.int16s.size:
        return _index_targets(labels.int16s, labels, lo, count, scratch)
    return _index_targets(labels.int8s, labels, lo, count, scratch)


@by_type
def _log2e_rest(x: Any) -> Any:
    """log2(e) minus its value in the type that ``x`` is computed in, in each lane."""
    rest = _LOG2E_REST[64 if x.dtype == types.float64 else 32]

    def in_each_lane(x: Any) -> Any:
        return constant(x, rest)

    return in_each_lane


@inlined
def _power(x: Any, z: Any) -> Any:
    """exp(-z) for z >= 0, or NaN: the product with log2(e) is carried to twice the precision."""
    scale, z = constant(x, LOG2E), minimum(constant(x, _FAR), z)
    t = constant(x, 0.0) - z * scale
    rest = fma(z, scale, t) + z * _log2e_rest(x)
    power = exp2(t)
    return fma(power, rest * constant(x, -math.log(2.0)), power)


@inlined
def _spread_all(options: Any, samples: Any, lo: int, count: int, plain: bool, scratch: Any) -> None:
    """Write _POSITIVE where it is wanted, and unless ``plain`` WEIGHT, _FACTOR, PUSH, and to SPARE
    where the weight is not 0.
    """
    weights, factors, slopes = scratch[WEIGHT], scratch[_FACTOR], scratch[PUSH]
    marks = scratch[SPARE]
    if options.weight.size:
        spread_weights(options.weight, options.weight_run, lo, count, scratch[_POSITIVE])
    if plain:
        return
    if options.factor.size:
        spread_weights(options.factor, options.factor_run, lo, count, factors)
    else:
        factors[:count] = 1.0
    if samples.size:
        for i in range(count):
            weights[i] *= samples[lo + i]
    for i in range(count):
        factors[i] *= weights[i]
        slopes[i] = options.upstream * factors[i]
        marks[i] = 1.0 if weights[i] != 0.0 else 0.0


@kernel_by_address
def binary_kernel(share: int, shares: int, packed: Any) -> None:
    """Compute ``share``, of ``shares`` contiguous ones of all tiles; see ``cross_entropy``."""
    tile, logits, soft, labels, options, results, _, out, scratches, _ = unpacked(packed)
    x, tiles = logits.data, (logits.positions + tile - 1) // tile
    scratch, samples = scratches.tiles[share % scratches.labels.shape[0]], labels.sample_weight
    losses, weights, slopes = scratch[LOSS], scratch[WEIGHT], scratch[PUSH]
    positives, factors, targets = scratch[_POSITIVE], scratch[_FACTOR], scratch[_TARGET]
    zero, one, upstream = constant(x, 0.0), constant(x, 1.0), constant(x, options.upstream)
    plain = options.factor.size == 0 and samples.size == 0
    marks = weights if plain else scratch[SPARE]
    for t in range(tiles * share // shares, tiles * (share + 1) // shares):
        lo = t * tile
        count = min(tile, logits.positions - lo)
        wrong = _targets(soft, labels, lo, count, scratch, options)
        if wrong < count and lo + wrong < results.bad[share]:
            results.bad[share] = lo + wrong
        _spread_all(options, samples, lo, count, plain, scratch)
        for i in range(0, count, width(x)):
            prefetch(x, lo + i + ahead(x))
            value = load_first(x, lo + i, count - i, zero)
            y, kept = narrowed(targets[i:], x), narrowed(marks[i:], x)
            positive = y
            if options.weight.size:
                positive = y * narrowed(positives[i:], x)
            negative, z = one - y, maximum(zero - value, value)
            power = _power(x, z)
            rest = log1p(power)
            up, down = maximum(value, zero) + rest, maximum(zero - value, zero) + rest
            up = where_equal(negative, zero, zero, negative * up)
            down = where_equal(y, zero, zero, positive * down)
            keep(losses, i, where_equal(kept, zero, zero, up + down))
            if out.data.size:
                inverse = one / (one + power)
                near, far = inverse, power * inverse
                above = where_greater(value, zero, near, far)
                below = where_greater(value, zero, far, near)
                slope = negative * above - positive * below
                slope = slope * (upstream if plain else narrowed(slopes[i:], x))
                slope = where_equal(kept, zero, zero, slope)
                store_first(out.data, lo + i, count - i, slope)
        if not plain:
            for i in range(count):
                losses[i] *= factors[i]
        sum_blocks(losses, weights, count, results.blocks, lo // BLOCK)
        if results.per_element.size:
            element = results.per_element[lo : lo + count]
            for i in range(count):
                element[i] = losses[i]
        if results.losses.size:
            for i in range(count):
                results.losses[lo + i], results.weights[lo + i] = losses[i], weights[i]
