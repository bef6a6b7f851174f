"""Divergence kernel of two dense tensors: a position's two rows at a time, with its outputs.

``Operands`` has other contents here: ``logits`` and ``soft`` are the views p and q of KL(p || q)
(the teacher is p, but q for a reverse divergence), ``labels`` are ``Positions``, ``options`` is
``Constants`` of this module, ``results`` ``Results`` and ``log_probs`` unused. All views have
contiguous classes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from kernels.compiled import inlined, kernel_by_address
from kernels.cpu.divergence.careful import careful_pair
from kernels.cpu.divergence.outputs import sum_mixture, write_slopes
from kernels.cpu.divergence.rows import sum_rows
from kernels.cpu.logit import Scale
from kernels.cpu.outputs.rows import prediction, write_zeros
from kernels.cpu.packed import unpacked
from kernels.cpu.sums.rows import sum_segment
from kernels.divergence_formula import FORWARD, JSD, LN2, REVERSE, not_negative, weighed
from kernels.formula import LARGEST_SHIFT
from kernels.plan import place
from kernels.simd import element, stored_past


class Positions(NamedTuple):
    """Labels (int64, negative: none) and weights (float64; 0 where the position is left out and
    not ``kept``, uint8), one a position; ``labels`` are empty where none are given.
    """

    labels: Any
    kept: Any
    weight: Any


class Options(NamedTuple):
    """Constants of the arithmetic.

    ``mode`` is a number of ``divergence_formula``. ``factor`` multiplies each divergence,
    ``upstream`` each gradient, which the student's scale does too. ``plain`` (of a tensor at
    temperature 1) is for the sum of the teacher's log-probabilities, which is to be 1 within
    ``tolerance``; that is infinite where it is not checked.
    """

    p: Scale
    q: Scale
    plain: Scale
    mode: int
    beta: float
    tail: int
    factor: float
    upstream: float
    tolerance: float


class Constants(NamedTuple):
    """``Options`` as they are passed to the threads, without tuples within: the fields of ``p``,
    ``q`` and ``plain`` are ``unit`` and ``scale`` of each.
    """

    p_unit: float
    p_scale: float
    q_unit: float
    q_scale: float
    plain_scale: float
    mode: int
    beta: float
    tail: int
    factor: float
    upstream: float
    tolerance: float


@inlined
def options_of(c: Any) -> Options:
    """``Options`` made of ``Constants``."""
    p, q = Scale(c.p_unit, c.p_scale, None), Scale(c.q_unit, c.q_scale, None)
    plain = Scale(1.0, c.plain_scale, None)
    return Options(p, q, plain, c.mode, c.beta, c.tail, c.factor, c.upstream, c.tolerance)


class Results(NamedTuple):
    """Arrays with one value a position; unwanted ones are empty. ``bad[share]`` is the first
    position whose target is refused. ``target_label_log_probs`` are the log-probabilities of its
    label by the teacher, ``label_log_probs`` by the student.
    """

    bad: Any
    losses: Any
    target_label_log_probs: Any
    label_log_probs: Any
    same_top: Any


class State(NamedTuple):
    """Sums of a position: of p ``total`` = sum(2**a), its shift and log2, and the same of q."""

    total: float
    shift: float
    log2: float
    q_total: float
    q_shift: float
    q_log2: float


@inlined
def leave_out(results: Any, gradient: Any, position: int) -> None:
    """Write the results of a position that does not count."""
    results.losses[position] = 0.0
    if results.same_top.size:
        results.same_top[position] = -1
    if results.label_log_probs.size:
        results.label_log_probs[position] = 0.0
        results.target_label_log_probs[position] = 0.0
    if gradient.data.size:
        write_zeros(gradient, position)


@inlined
def write_position(
    results: Any, position: int, divergence: float, weight: float, t: float, s: float, options: Any
) -> None:
    """Write the loss, and the log-probabilities of the label."""
    results.losses[position] = weighed(divergence, weight, options.factor)
    if results.label_log_probs.size:
        results.target_label_log_probs[position] = t
        results.label_log_probs[position] = s


@inlined
def _log_prob(view: Any, position: int, y: int, scale: Any, shift: float, log2: float) -> float:
    value = element(view.data, place(view, position) + y)
    return min(0.0, (value * scale.scale - shift - log2) * LN2)


@inlined
def _sums_to_1(
    teacher: Any, position: int, plain: Any, own: Any, log2: float, tolerance: float
) -> bool:
    """Test the teacher's log-probabilities: log2 of their sum at temperature 1 is ``log2``, or
    still to be made where its ``own`` scale is another one.
    """
    if plain.scale != own.scale:
        first = place(teacher, position)
        power, shift = sum_segment(teacher.data, first, teacher.classes, plain, None, 0)
        log2 = math.log2(power) + shift
    return abs(2.0**log2 - 1.0) <= tolerance


@inlined
def _finished(
    p: Any, q: Any, position: int, state: Any, cross: float, options: Any, gradient: Any,
    factor: float,
) -> float:  # fmt: skip
    """Divergence in nats; writes the gradient."""
    apart = state.log2 - state.q_log2
    value = cross / state.total - apart
    mean = 1.0 if options.mode == FORWARD else value
    if options.mode == JSD:
        by_p, mean = sum_mixture(p, q, position, state, options)
        value = options.beta * by_p + (1.0 - options.beta) * mean
    if gradient.data.size:
        write_slopes(p, q, gradient, position, state, mean, options, factor)
    return not_negative(value * LN2)


@kernel_by_address
def pair_kernel(share: int, shares: int, packed: Any) -> None:
    """Compute ``share``, of ``shares`` contiguous ones of all positions."""
    _, p, q, given, constants, results, _, gradient, _, _ = unpacked(packed)
    options = options_of(constants)
    swapped, first = options.mode == REVERSE, p.positions * share // shares
    for position in range(first, p.positions * (share + 1) // shares):
        if given.kept[position] == 0:
            leave_out(results, gradient, position)
            continue
        weight = given.weight[position]
        y = given.labels[position] if given.labels.size else -1
        x_first, y_first = place(p, position), place(q, position)
        total, shift, q_total, q_shift, cross = sum_rows(
            p.data, x_first, options.p, q.data, y_first, options.q, p.classes
        )
        state = State(total, shift, math.log2(total), q_total, q_shift, math.log2(q_total))
        factor = options.upstream * weight
        odd = not (abs(cross) < math.inf and total < math.inf and q_total < math.inf)
        odd |= max(abs(shift), abs(q_shift)) >= LARGEST_SHIFT
        if options.tolerance < math.inf and weight != 0.0:
            if swapped:
                log2 = state.q_log2 + q_shift
                whole = _sums_to_1(q, position, options.plain, options.q, log2, options.tolerance)
            else:
                log2 = state.log2 + shift
                whole = _sums_to_1(p, position, options.plain, options.p, log2, options.tolerance)
            if not whole:
                results.bad[share] = min(results.bad[share], position)
        t, s = 0.0, 0.0
        if odd:
            divergence, t, s = careful_pair(p, q, position, y, options, gradient, factor)
        else:
            divergence = _finished(p, q, position, state, cross, options, gradient, factor)
            if y >= 0:
                t = _log_prob(p, position, y, options.p, shift, state.log2)
                s = _log_prob(q, position, y, options.q, q_shift, state.q_log2)
                if swapped:
                    t, s = s, t
        write_position(results, position, divergence, weight, t, s, options)
        if results.same_top.size:
            same = prediction(p, position) == prediction(q, position)
            results.same_top[position] = -1 if math.isnan(divergence) else same
    if gradient.data.size:
        stored_past()
