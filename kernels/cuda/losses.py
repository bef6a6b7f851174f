"""From a position's sums to its loss and what else is said of it, in float64."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

from numba import cuda

from kernels.cpu.tile import FAR, TINY
from kernels.cuda.kinds import Kind, target
from kernels.cuda.sums import LARGEST_SHIFT, functions, pair

device, exp2, fma, element = target.device, target.exp2, target.fma, target.element
# Rows of ``Answers.state``, for who writes a value for each class: the negated shift; the sum of
# powers (NaN: another kernel writes them) and its log2; and as on the CPU (``cpu.outputs``) the
# factors of the gradient, PUSH * p[c] - PULL * q[c] - OWN * (c == y).
MINUS, TOTAL, LOG2, PUSH, PULL, OWN = range(6)
STATES = 6
IGNORED, IMPOSSIBLE = -1, -2


class Known(NamedTuple):
    """What sums come to. ``log_prob`` of the label and ``log2`` of the sum are in base 2;
    ``log_sum_exp`` is TINY times what its name says.
    """

    log_prob: float
    log2: float
    log_sum_exp: float
    mass: float
    smooth: float


@device
def at_most_0(log_prob: float) -> float:
    """Rounding makes no probability larger than 1; NaN stays NaN."""
    return 0.0 if log_prob > 0.0 else log_prob


@device
def label_of(labels: Any, position: int, classes: int) -> int:
    """The label, proved to be a class, or IGNORED, or IMPOSSIBLE."""
    if labels.classes.size == 0:
        return IGNORED
    label = labels.classes[position]
    if labels.ignores and label == labels.ignore_index:
        return IGNORED
    if label < 0 or label >= classes:
        return IMPOSSIBLE
    return int(label)


@device
def loss_of(known: Any, y: int, soft: bool, classes: int, sample: float, rule: Any) -> Any:
    """``(loss, weight)``: the weight is the position's share in a mean's denominator."""
    if y < 0 and not soft:
        return 0.0, 0.0
    loss, weight = 0.0, 1.0
    if not soft:
        if rule.weight.size:
            weight = rule.weight[y]
        loss = -(weight * (known.log_prob * rule.to_nats))
    if rule.lane_weight.size:
        rest = known.log2 * known.mass - known.smooth
        if classes == 1:  # one class, whose log-probability is exact
            rest = -(known.log_prob * known.mass)
        rest *= rule.to_nats
        loss = rest if soft else rule.keep * loss + rule.spread * rest
    if rule.z_loss > 0.0:
        log_sum_exp = known.log_sum_exp / TINY
        loss += rule.z_loss * log_sum_exp * log_sum_exp
    return loss * sample, weight * sample


@device
def weigh_gradient(known: Any, y: int, soft: bool, sample: float, rule: Any) -> Any:
    """``(push, pull, own)``; all 0 where the label is ignored."""
    if y < 0 and not soft:
        return 0.0, 0.0, 0.0
    factor, own, push = rule.upstream * rule.unit * sample, 0.0, 0.0
    if not soft:
        own = rule.keep
        if rule.weight.size:
            own *= rule.weight[y]
        push = own
        if rule.lane_weight.size:
            push += rule.spread * known.mass
    else:
        push = known.mass
    if rule.z_loss > 0.0:
        push += 2.0 * (rule.z_loss * known.log_sum_exp) / TINY
    return factor * push, factor, factor * own


@device
def sample_of(labels: Any, position: int) -> float:
    """The sample weight."""
    return labels.samples[position] if labels.samples.size else 1.0


@device
def prove_shares(
    position: int, shares: float, least: float, labels: Any, rule: Any, answers: Any
) -> None:
    """Reports class probabilities below 0, or that do not sum to 1; see ``cpu.tile``."""
    right = abs(shares - 1.0) <= rule.tolerance and least >= 0.0  # NaN is not
    if rule.tolerance < math.inf and not right and sample_of(labels, position) != 0.0:
        cuda.atomic.min(answers.status, 0, position)


@device
def give(
    position: int, known: Any, loss: float, weight: float, y: int, soft: bool, sample: float,
    rule: Any, answers: Any,
) -> None:  # fmt: skip
    """Writes the position's loss, its weight and its log-sum-exp, and what its gradient takes."""
    answers.losses[position], answers.weights[position] = loss, weight
    if answers.per_element.size:
        answers.per_element[position] = loss
    if answers.log_sum_exp.size:
        answers.log_sum_exp[position] = known.log_sum_exp / TINY
    if rule.per_class:
        push, pull, own = weigh_gradient(known, y, soft, sample, rule)
        answers.state[LOG2, position] = known.log2
        answers.state[PUSH, position] = push
        answers.state[PULL, position], answers.state[OWN, position] = pull, own


@target.team
def leave_out(position: int, y: int, rule: Any, answers: Any) -> None:
    """The answers for a position whose label is ignored, or impossible, where no others count."""
    if y == IMPOSSIBLE:
        cuda.atomic.min(answers.status, 0, position)
    answers.losses[position], answers.weights[position] = 0.0, 0.0
    if answers.per_element.size:
        answers.per_element[position] = 0.0
    if answers.rank.size:
        answers.rank[position] = -1
    for row in range(STATES if rule.per_class else 0):
        answers.state[row, position] = 1.0 if row == TOTAL else 0.0


@lru_cache
def finish(kind: Kind) -> Any:
    """A function that turns the ``Sums`` of a position into all answers that are one a position;
    those that the fast sums cannot represent are listed for ``careful``.
    """
    more, smooth, soft = kind.more, kind.smooth, kind.soft
    logit = functions(kind).logit

    @target.team
    def finish(
        position: int, sums: Any, y: int, own: Any, classes: int, labels: Any, rule: Any,
        answers: Any,
    ) -> None:  # fmt: skip
        total, shift = pair(sums.total, sums.total_rest), float(sums.shift)
        if soft:
            prove_shares(position, float(sums.shares), float(sums.least), labels, rule, answers)
        mass, whole = 0.0, 0.0
        if smooth:
            mass = pair(sums.mass, sums.mass_rest) if soft else rule.mass
            whole = pair(sums.smooth, sums.smooth_rest)
        own = logit(own, rule.reals.cap)
        far = y >= 0 and -math.inf < float(own) and float(own) < -FAR / rule.scale
        far = far or not abs(mass + whole) < math.inf
        if not total < math.inf or abs(shift) >= LARGEST_SHIFT or far:
            slot = cuda.atomic.add(answers.status, 1, 1)
            answers.odd[slot] = position
            if rule.per_class:
                answers.state[TOTAL, position] = math.nan
            return
        log2, log_prob = math.log2(total), 0.0
        # A label whose power alone is the whole sum costs exactly 0, as in PyTorch.
        if y >= 0 and float(exp2(fma(own, rule.reals.scale, -sums.shift))) != total:
            log_prob = at_most_0(float(own) * rule.scale - shift - log2)
        log_sum_exp = TINY * ((log2 + shift) * rule.to_nats)
        known, sample = Known(log_prob, log2, log_sum_exp, mass, whole), sample_of(labels, position)
        loss, weight = loss_of(known, y, soft, classes, sample, rule)
        give(position, known, loss, weight, y, soft, sample, rule, answers)
        if rule.per_class:
            answers.state[MINUS, position], answers.state[TOTAL, position] = -shift, total
        if more:
            surprise = pair(sums.surprise, sums.surprise_rest) / total
            if answers.entropy.size:
                answers.entropy[position] = max(0.0, (log2 - surprise) * rule.to_nats)
            if answers.rank.size:
                answers.rank[position] = sums.before if y >= 0 else -1
            if answers.prediction.size:
                answers.prediction[position] = sums.best_at

    return finish


@lru_cache
def own_logit(kind: Kind) -> Any:
    """A function: the label's logit as given; ``first`` is where the position's classes begin."""
    real = kind.real

    @device
    def own_logit(logits: Any, first: int, y: int) -> Any:
        if y < 0:
            return real(0.0)
        return element(logits.data, first + y * logits.class_stride)

    return own_logit
