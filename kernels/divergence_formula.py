"""Divergence of two distributions by one class at a time: scalar float64 formulas of both targets.

``t`` and ``s`` are a class's log-probabilities by the teacher and by the student, in nats; -inf is
probability 0. As in ``formula``, none may call another.

Forward is KL(teacher || student) = sum(p * (t - s)), reverse KL(student || teacher). The
generalised Jensen-Shannon divergence is beta * KL(teacher || m) + (1 - beta) * KL(student || m) of
the mixture m = beta * teacher + (1 - beta) * student (Agarwal et al., "On-Policy Distillation of
Language Models", 2024, equation 1).
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import inlined

FORWARD, REVERSE, JSD = range(3)
LN2 = math.log(2.0)


@inlined
def term_of(t: float, s: float, mode: int, beta: float) -> Any:
    """``(term, mean)``: a class's share of the divergence, and of the sum that its gradient needs.

    0 * log(0) is 0, and a class that the second distribution excludes makes the term infinite. The
    mean is sum(p) for FORWARD, sum(q * (s - t)) for REVERSE and sum(q * log(q / m)) for JSD.
    """
    p, q = math.exp(t), math.exp(s)
    if mode == 0:
        return (p * (t - s) if p != 0.0 else 0.0), p
    if mode == 1:
        term = q * (s - t) if q != 0.0 else 0.0
        return term, term
    by_p, by_q = 0.0, 0.0
    if t >= s:
        if p != 0.0:
            log = math.log1p((1.0 - beta) * math.expm1(s - t))
            by_p, by_q = -p * log, q * (s - t - log) if q != 0.0 else 0.0
    elif q != 0.0:
        log = math.log1p(beta * math.expm1(t - s))
        by_p, by_q = p * (t - s - log) if p != 0.0 else 0.0, -q * log
    return beta * by_p + (1.0 - beta) * by_q, by_q


@inlined
def slope_of(t: float, s: float, mean: float, rest: float, mode: int, beta: float) -> float:
    """Derivative of the divergence by the student's scaled logit of this class.

    ``mean`` is the sum of ``term_of``'s over all classes, plus ``rest`` times the student's
    probability of them; ``rest`` is 1 where some classes are left out of the sum (then the
    normalisation does not cancel it, for REVERSE) and else 0. Where a reverse divergence is
    infinite, the classes that make it so have +inf, and other possible ones -inf: the limit as the
    teacher's probabilities of the former go to 0 together.
    """
    q = math.exp(s)
    if mode == 0:
        return q * mean - math.exp(t)
    if q == 0.0:
        return 0.0
    if mode == 1:
        gap = s - t + rest
        if gap == math.inf:
            return math.inf
        return q * (gap - mean)
    if t >= s:
        log = s - t - math.log1p((1.0 - beta) * math.expm1(s - t))
    else:
        log = -math.log1p(beta * math.expm1(t - s))
    return (1.0 - beta) * q * (log - mean)


@inlined
def weighed(divergence: float, weight: float, factor: float) -> float:
    """Loss of a position: its divergence times both; a weight of 0 makes any divergence 0."""
    return weight * (factor * divergence) if weight != 0.0 else 0.0


@inlined
def not_negative(divergence: float) -> float:
    """Cut off rounding below 0, which no divergence is; NaN stays NaN."""
    return 0.0 if divergence < 0.0 else divergence
