"""Kernel of the binary cross-entropy: a logit is a position, and there are no sums over classes.

With s(x) = log(1 + exp(x)), the loss of a label y is (1 - y) * s(x) + w * y * s(-x), where w is the
weight of positive labels. Neither term of s(x) = max(x, 0) + log1p(exp(-abs(x))) overflows or
cancels; a term whose factor is 0 counts as 0 even where s is infinite. Losses are computed in the
type that logits are computed in, and added in float64.
"""

from __future__ import annotations

import math
from typing import Any

from numba import types

from kernels.compiled import by_type, inlined, kernel_by_address
from kernels.cpu.packed import unpacked
from kernels.cpu.planes import keep, narrowed
from kernels.cpu.tile import (
    LOSS,
    MASS,
    PUSH,
    SMOOTH,
    VALUE,
    WEIGHT,
    prove_labels,
    read_labels,
)
from kernels.reduce import BLOCK, sum_blocks
from kernels.simd import (
    ahead,
    constant,
    exp2,
    fma,
    load_first,
    log1p,
    maximum,
    minimum,
    prefetch,
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
def _targets(
    soft: Any, labels: Any, lo: int, count: int, label: Any, scratch: Any, options: Any
) -> int:
    """Write _TARGET, and WEIGHT: 0 where the label is ignored, else 1.

    Returns the place of the first label that is neither ignored nor in range, or ``count``.
    """
    targets, weights, bad = scratch[_TARGET], scratch[WEIGHT], count
    if soft.data.size:
        x, ignored, checked = soft.data, float(labels.ignore_index), options.tolerance < math.inf
        for i in range(0, count, width(x)):
            keep(targets, i, load_first(x, lo + i, count - i, constant(x, 0.0)))
        for i in range(count):
            value = targets[i]
            left_out = value == ignored
            right = left_out | (not checked) | ((value >= 0.0) & (value <= 1.0))
            bad = min(bad, count if right else i)
            weights[i] = 0.0 if left_out else 1.0
            targets[i] = 0.0 if left_out else value
        return bad
    read_labels(labels, lo, count, label)
    bad = prove_labels(label, count, 2, labels)
    for i in range(count):
        targets[i] = 1.0 if label[i] > 0 else 0.0
        weights[i] = 1.0 if label[i] >= 0 else 0.0
    return bad


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


@kernel_by_address
def binary_kernel(share: int, shares: int, packed: Any) -> None:
    """Compute ``share``, of ``shares`` contiguous ones of all tiles; see ``loss``."""
    tile, logits, soft, labels, options, results, _, out, scratches, _ = unpacked(packed)
    x, tiles = logits.data, (logits.positions + tile - 1) // tile
    own = share % scratches.labels.shape[0]
    label, scratch = scratches.labels[own], scratches.tiles[own]
    losses, weights, samples = scratch[LOSS], scratch[WEIGHT], labels.sample_weight
    zero, one = constant(x, 0.0), constant(x, 1.0)
    positives, factors, slopes = scratch[_POSITIVE], scratch[_FACTOR], scratch[PUSH]
    for t in range(tiles * share // shares, tiles * (share + 1) // shares):
        lo = t * tile
        count = min(tile, logits.positions - lo)
        wrong = _targets(soft, labels, lo, count, label, scratch, options)
        if wrong < count and lo + wrong < results.bad[share]:
            results.bad[share] = lo + wrong
        if options.weight.size:
            spread_weights(options.weight, options.weight_run, lo, count, positives)
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
        for i in range(0, count, width(x)):
            prefetch(x, lo + i + ahead(x))
            value = load_first(x, lo + i, count - i, zero)
            y = narrowed(scratch[_TARGET, i:], x)
            positive = y
            if options.weight.size:
                positive = y * narrowed(positives[i:], x)
            negative, z = one - y, maximum(zero - value, value)
            power = _power(x, z)
            rest = log1p(power)
            up, down = maximum(value, zero) + rest, maximum(zero - value, zero) + rest
            up = where_equal(negative, zero, zero, negative * up)
            down = where_equal(y, zero, zero, positive * down)
            keep(losses, i, up + down)
            if out.data.size:
                inverse = one / (one + power)
                near, far = inverse, power * inverse
                above = where_greater(value, zero, near, far)
                below = where_greater(value, zero, far, near)
                slope = negative * above - positive * below
                slope = slope * narrowed(slopes[i:], x)
                kept = narrowed(weights[i:], x)
                slope = where_equal(kept, zero, zero, slope)
                store_first(out.data, lo + i, count - i, slope)
        for i in range(count):
            losses[i] = losses[i] * factors[i] if weights[i] != 0.0 else 0.0
        sum_blocks(losses, weights, count, results.blocks, lo // BLOCK)
        if results.per_element.size:
            element = results.per_element[lo : lo + count]
            for i in range(count):
                element[i] = losses[i]
        if results.losses.size:
            for i in range(count):
                results.losses[lo + i], results.weights[lo + i] = losses[i], weights[i]
