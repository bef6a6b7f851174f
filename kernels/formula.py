"""Loss and gradient of one position as scalar float64 formulas, written once for both targets.

``inlined`` makes each function available to CPU kernels; the modules of ``cuda`` pass the same
functions to ``target.device``. CUDA compiles each one alone, so none may call another.
``options`` is ``options.Options`` or ``cuda.arguments.Options``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from kernels.compiled import inlined

LOG2E = math.log2(math.e)
# Exponents of 2 beyond -FAR go to ``careful``: float64 ends soon after, in base 2 before it does in
# nats.
FAR = 2.0**900
# ``careful`` keeps the terms of a loss times this power of two, exactly: a gap of 2**1025 over the
# least temperature, 1e-30, is below 2**1125, and weights may make a finite loss of it.
TINY = 2.0**-128
# Float32 has no whole numbers to spare beyond it; rows with a larger shift go to ``careful``.
LARGEST_SHIFT = 2.0**22
# Below -ALONE an exponent of 2 is the logit's alone: the log-sum-exp, at most 2**22, is lost in
# rounding, and the exponent may be infinite where the logarithm in nats is not.
ALONE = 2.0**100


class Known(NamedTuple):
    """Sums over a position's classes that its loss is made of.

    ``log_prob`` is the label's log-probability, ``log_total`` the logarithm of the sum of powers,
    ``mass`` the sum of q, and ``smooth`` the sum of q * t, where q is the class weight times the
    smoothed probability and t the shifted logit (``rows.sum_soft``). All are in base 2; those of
    ``careful`` are in nats, ``log_prob`` and ``smooth`` times TINY. ``log_sum_exp`` is always TINY
    times the natural logarithm. ``expected`` is the sum of p times the class probability, for the
    focal factor.
    """

    log_prob: float
    log_total: float
    log_sum_exp: float
    mass: float
    smooth: float
    expected: float


@inlined
def loss_of(known: Any, y: int, soft: bool, sample: float, options: Any) -> Any:
    """``(loss, weight)`` in nats; the weight is the position's share of a mean's denominator.

    ``y`` is the class index, negative if ignored; ``soft``: labels are class probabilities;
    ``sample`` is the sample weight.
    """
    if y < 0 and not soft:
        return 0.0, 0.0
    loss, weight = 0.0, 1.0
    if not soft:
        if options.weight.size:
            weight = options.weight[y]
        loss = -(weight * (known.log_prob * options.to_nats))
    if options.lane_weight.size:
        rest = known.log_total * known.mass - known.smooth
        if options.lane_weight.size == 1:  # one class, whose log-probability is exact
            rest = -(known.log_prob * known.mass)
        rest *= options.to_nats
        loss = rest if soft else options.keep * loss + options.spread * rest
    if options.focal > 0.0:
        if soft:
            miss = 1.0 - options.spread - options.keep * known.expected
        else:
            miss = -(options.keep * math.expm1(known.log_prob * options.to_nats))
            miss += 1.0 - options.keep - options.spread
        loss *= 0.0 if miss < 0.0 else miss**options.focal
    if options.z_loss > 0.0:
        nats = known.log_sum_exp / TINY
        loss += options.z_loss * (nats * nats)
    loss *= sample
    # NaN without a sign: a sum of two NaNs has that of the one that the compiler puts first.
    return loss if loss == loss else math.nan, weight * sample


@inlined
def careful_loss(known: Any, y: int, soft: bool, sample: float, options: Any) -> Any:
    """``loss_of`` for what ``careful`` knows: see ``Known`` for its units."""
    if y < 0 and not soft:
        return 0.0, 0.0
    loss, weight = 0.0, 1.0
    if not soft:
        if options.weight.size:
            weight = options.weight[y]
        loss = -(weight * known.log_prob)
    if options.lane_weight.size:
        mass = known.mass if soft else options.spread * known.mass
        rest = TINY * known.log_total * mass - known.smooth
        loss = rest if soft else options.keep * loss + rest
    if options.focal > 0.0:
        if soft:
            miss = 1.0 - options.spread - options.keep * known.expected
        else:
            miss = -(options.keep * math.expm1(known.log_prob / TINY))
            miss += 1.0 - options.keep - options.spread
        loss *= 0.0 if miss < 0.0 else miss**options.focal
    if options.z_loss > 0.0:
        loss += known.log_sum_exp * (options.z_loss * known.log_sum_exp) / TINY
    loss = loss * sample / TINY
    return loss if loss == loss else math.nan, weight * sample


@inlined
def gradient_factors(known: Any, y: int, soft: bool, sample: float, options: Any) -> Any:
    """``(push, pull, own, lean)``: the gradient by class c is
    (push - lean * given[c]) * p[c] - pull * q[c] - own * (c == y).

    p is the softmax, q the class weight times the smoothed probability (``target_of``), given the
    class probability. They are the derivatives of the loss's terms; without options p - onehot.
    All 0 where the label is ignored. Of ``known``, which has no unit of ``careful``'s here but
    TINY's in ``log_sum_exp``, all is read with a focal factor, else ``mass`` and ``log_sum_exp``.

    With m = 1 - sum(q' * p), where q' are the smoothed probabilities, the derivative of
    m**focal * loss is m**focal * d(loss) - focal * m**(focal - 1) * loss * p[c] * (q'[c] - 1 + m).
    """
    if y < 0 and not soft:
        return 0.0, 0.0, 0.0, 0.0
    factor, own, push, weight = options.upstream * options.unit * sample, 0.0, 0.0, 1.0
    pull, lean = factor, 0.0
    if not soft:
        if options.weight.size:
            weight = options.weight[y]
        own = options.keep * weight
        push = own
        if options.lane_weight.size:
            push += options.spread * known.mass
    else:
        push = known.mass
    if options.focal > 0.0:
        loss, hit = -(weight * (known.log_prob * options.to_nats)), known.expected
        miss = 1.0 - options.spread - options.keep * known.expected
        if not soft:
            hit = math.exp(known.log_prob * options.to_nats)
            miss = -(options.keep * math.expm1(known.log_prob * options.to_nats))
            miss += 1.0 - options.keep - options.spread
        if options.lane_weight.size:
            rest = known.log_total * known.mass - known.smooth
            if options.lane_weight.size == 1:
                rest = -(known.log_prob * known.mass)
            rest *= options.to_nats
            loss = rest if soft else options.keep * loss + options.spread * rest
        # Where nothing is missed, the loss is 0, and so is the limit of each term.
        share = 0.0 if miss <= 0.0 else miss**options.focal
        slant = 0.0 if miss <= 0.0 else options.keep * options.focal * (share / miss) * loss
        # A label of probability 0 has an infinite loss, whose product with it is 0 in the limit.
        moved = 0.0 if hit == 0.0 else slant * hit
        push, own, pull = share * push + moved, share * own, share * pull
        if soft:
            lean = factor * slant
        else:
            own += moved
    if options.z_loss > 0.0:
        push += 2.0 * (options.z_loss * known.log_sum_exp) / TINY
    return factor * push, pull, factor * own, lean


@inlined
def gradient_of(p: float, q: float, given: float, is_label: bool, factors: Any) -> float:
    """Gradient by one class's capped logit, from ``gradient_factors``."""
    push, pull, own, lean = factors
    gradient = (push - lean * given) * p - pull * q
    return gradient - own if is_label else gradient


@inlined
def target_of(given: float, c: int, soft: bool, options: Any) -> float:
    """Class weight times the smoothed probability of class ``c``; ``given`` is read if ``soft``."""
    q = options.spread
    if soft:
        q += options.keep * given
    if options.weight.size:
        q *= options.weight[c]
    return q


@inlined
def careful_terms(given: float, c: int, gap: float, soft: bool, options: Any) -> Any:
    """``(mass, smooth)``: one class's terms of these sums in ``Known``.

    For class indices ``mass`` is the class weight alone. A class whose smoothed probability is 0
    adds 0 even where its ``gap`` is -inf; PyTorch gives NaN there.
    """
    p, spread = 1.0, options.spread
    if soft:
        p, spread = options.keep * given + options.spread, 1.0
    q = p
    if options.weight.size:
        q = options.weight[c] * p
    return q, (q * spread) * gap if p != 0.0 else 0.0


@inlined
def is_distribution(shares: float, least: float, tolerance: float) -> bool:
    """Test class probabilities: their sum ``shares``, and the least of them and 0. NaN fails."""
    return (abs(shares - 1.0) <= tolerance) & (least >= 0.0)


@inlined
def sample_of(labels: Any, position: int) -> float:
    """Sample weight of ``position``; ``labels.sample_weight`` is empty where none are given."""
    return labels.sample_weight[position] if labels.sample_weight.size else 1.0


@inlined
def log_sum_exp_of(log2_total: float, shift: float, to_nats: float) -> float:
    """TINY times the log-sum-exp of a position, in nats, from its sum in base 2."""
    return TINY * ((log2_total + shift) * to_nats)


@inlined
def careful_log_sum_exp(peak: float, log_total: float, unit: float) -> float:
    """TINY times the log-sum-exp, in nats, from the largest logit and the sum relative to it."""
    if math.isinf(peak):
        return peak
    return TINY * unit * peak + TINY * log_total


@inlined
def scaled_gap(value: float, peak: float, unit: float) -> float:
    """``unit * (value - peak)`` by halves: the gap alone may be twice what float64 holds."""
    return (2.0 * unit) * (0.5 * value - 0.5 * peak)


@inlined
def capped_softly(raw: float, cap: float) -> float:
    """A logit of the element ``raw``, capped softly."""
    return cap * math.tanh(raw / cap)


@inlined
def slope_of_cap(raw: float, cap: float) -> float:
    """Derivative of ``capped_softly`` by ``raw``: 1 - tanh(z)**2 without its cancellation."""
    power = math.exp(-2.0 * abs(raw / cap))
    return 4.0 * power / ((1.0 + power) * (1.0 + power))
