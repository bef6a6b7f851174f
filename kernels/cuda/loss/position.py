"""Loss and other results of a position from its sums, in float64."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from numba import cuda

from kernels import formula, plan
from kernels.cuda.arguments import Options
from kernels.cuda.kinds import Kind, target
from kernels.cuda.sums.thread import functions, pair
from kernels.formula import FAR, LARGEST_SHIFT, Known

device, exp2, fma, element = target.device, target.exp2, target.fma, target.element
# Rows of ``Results.state``, for the kernels that write a value a class: the negated shift; the sum
# of powers (NaN: ``careful`` writes the position) and its log2; ``formula.gradient_factors``.
MINUS, TOTAL, LOG2, PUSH, PULL, OWN, LEAN = range(7)
STATES = 7
IGNORED, IMPOSSIBLE = -1, -2

place = device(plan.place)
loss_of, gradient_factors = device(formula.loss_of), device(formula.gradient_factors)
sample_of, log_sum_exp_of = device(formula.sample_of), device(formula.log_sum_exp_of)
is_distribution = device(formula.is_distribution)


@device
def at_most_0(log_prob: float) -> float:
    """Cut off what rounding adds to a probability of 1; NaN stays NaN."""
    return 0.0 if log_prob > 0.0 else log_prob


@device
def label_of(labels: Any, position: int, classes: int) -> int:
    """Label of ``position``, proved to be a class, or IGNORED, or IMPOSSIBLE."""
    if labels.classes.size == 0:
        return IGNORED
    label = labels.classes[position]
    if labels.ignores and label == labels.ignore_index:
        return IGNORED
    if label < 0 or label >= classes:
        return IMPOSSIBLE
    return int(label)


@device
def prove_shares(
    position: int, shares: float, least: float, labels: Any, options: Any, results: Any
) -> None:
    """Report class probabilities that are no distribution, unless their sample weight is 0."""
    right = is_distribution(shares, least, options.tolerance)
    if options.tolerance < math.inf and not right and sample_of(labels, position) != 0.0:
        cuda.atomic.min(results.status, 0, position)


@device
def write_results(
    position: int, known: Any, loss: float, weight: float, factors: Any, options: Any, results: Any
) -> None:
    """Write the position's loss, weight and log-sum-exp, and its gradient's ``factors``."""
    results.losses[position], results.weights[position] = loss, weight
    if results.per_element.size:
        results.per_element[position] = loss
    if results.log_sum_exp.size:
        results.log_sum_exp[position] = known.log_sum_exp / formula.TINY
    if options.per_class:
        push, pull, own, lean = factors
        results.state[LOG2, position] = known.log_total
        results.state[PUSH, position] = push
        results.state[PULL, position], results.state[OWN, position] = pull, own
        results.state[LEAN, position] = lean


@target.team
def leave_out(position: int, y: int, options: Any, results: Any) -> None:
    """Write the results of a position with an ignored or impossible label, where it has no sums."""
    if y == IMPOSSIBLE:
        cuda.atomic.min(results.status, 0, position)
    results.losses[position], results.weights[position] = 0.0, 0.0
    if results.per_element.size:
        results.per_element[position] = 0.0
    if results.rank.size:
        results.rank[position] = -1
    for row in range(STATES if options.per_class else 0):
        results.state[row, position] = 1.0 if row == TOTAL else 0.0


def _without_focal() -> Any:
    """Function: ``options`` with a constant for ``focal``, so that what it takes is not compiled.

    It would take a fifth of the warps of an SM from all losses.
    """

    @device
    def without_focal(o: Any) -> Any:
        return Options(
            o.reals, o.scale, o.to_nats, o.unit, o.cap, o.keep, o.spread, o.z_loss, 0.0, o.weight,
            o.lane_weight, o.mass, o.probs, o.upstream, o.ignored_too, o.tolerance, o.per_class,
        )  # fmt: skip

    return without_focal


def _expected(kind: Kind) -> Any:
    """Function: the sum of the powers times the class probabilities, for their focal factor.

    One thread reads the position again: rarely wanted, it is left out of all other sums.
    """
    logit = functions(kind).logit

    @device
    def expected(logits: Any, soft: Any, position: int, shift: Any, options: Any) -> float:
        first, soft_first, total = place(logits, position), place(soft, position), 0.0
        for c in range(logits.classes):
            value = logit(element(logits.data, first + c * logits.class_stride), options.reals.cap)
            given = element(soft.data, soft_first + c * soft.class_stride)
            total += float(exp2(fma(value, options.reals.scale, -shift))) * float(given)
        return total

    return expected


@lru_cache
def finish(kind: Kind) -> Any:
    """Function that turns the ``Sums`` of a position into its results, but for those a class.

    Positions that the sums cannot represent are listed for ``careful``.
    """
    more, smooth, soft, focal = kind.more, kind.smooth, kind.soft, kind.focal
    logit, expected_, without_focal = functions(kind).logit, _expected(kind), _without_focal()

    @target.team
    def finish(
        position: int, sums: Any, y: int, own: Any, logits: Any, soft_view: Any, labels: Any,
        options: Any, results: Any,
    ) -> None:  # fmt: skip
        total, shift = pair(sums.total, sums.total_rest), float(sums.shift)
        if soft:
            shares, least = float(sums.shares), float(sums.least)
            prove_shares(position, shares, least, labels, options, results)
        mass, whole = 0.0, 0.0
        if smooth:
            mass = pair(sums.mass, sums.mass_rest) if soft else options.mass
            whole = pair(sums.smooth, sums.smooth_rest)
        own = logit(own, options.reals.cap)
        far = y >= 0 and -math.inf < float(own) and float(own) < -FAR / options.scale
        far = far or not abs(mass + whole) < math.inf
        if not total < math.inf or abs(shift) >= LARGEST_SHIFT or far:
            slot = cuda.atomic.add(results.status, 1, 1)
            results.odd[slot] = position
            if options.per_class:
                results.state[TOTAL, position] = math.nan
            return
        log2, log_prob = math.log2(total), 0.0
        # A label whose power alone is the whole sum costs exactly 0, as in PyTorch.
        if y >= 0 and float(exp2(fma(own, options.reals.scale, -sums.shift))) != total:
            log_prob = at_most_0(float(own) * options.scale - shift - log2)
        log_sum_exp = log_sum_exp_of(log2, shift, options.to_nats)
        expected = 0.0
        if soft and focal:
            expected = expected_(logits, soft_view, position, sums.shift, options) / total
        known = Known(log_prob, log2, log_sum_exp, mass, whole, expected)
        sample, told = sample_of(labels, position), options if focal else without_focal(options)
        loss, weight = loss_of(known, y, soft, sample, told)
        factors = gradient_factors(known, y, soft, sample, told)
        write_results(position, known, loss, weight, factors, options, results)
        if options.per_class:
            results.state[MINUS, position], results.state[TOTAL, position] = -shift, total
        if more:
            surprise = pair(sums.surprise, sums.surprise_rest) / total
            if results.entropy.size:
                results.entropy[position] = max(0.0, (log2 - surprise) * options.to_nats)
            if results.rank.size:
                results.rank[position] = sums.before if y >= 0 else -1
            if results.prediction.size:
                results.prediction[position] = sums.best_at

    return finish


@lru_cache
def own_logit(kind: Kind) -> Any:
    """Function: the label's logit without the cap; the position's classes begin at ``first``."""
    real = kind.real

    @device
    def own_logit(logits: Any, first: int, y: int) -> Any:
        if y < 0:
            return real(0.0)
        return element(logits.data, first + y * logits.class_stride)

    return own_logit
