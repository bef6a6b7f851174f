"""Divergence kernel of dense logits and a sparse teacher: some classes of each position.

The classes of a position are sorted, which shows repeated ones and leaves gaps between them; the
student's sum over the gaps is its probability of all other classes, without the cancellation of
1 - sum(q). ``Operands`` are those of ``dense``, but for ``soft``, which is unused, and
``log_probs``, which is a ``Teacher``. ``scratch`` is ``Sorted``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from kernels.compiled import called, inlined, kernel_by_address
from kernels.cpu.divergence.careful import log_sum
from kernels.cpu.divergence.dense import leave_out, options_of, write_position
from kernels.cpu.outputs.rows import least_exponent, prediction
from kernels.cpu.packed import unpacked
from kernels.cpu.sums.powers import sum_powers
from kernels.cpu.sums.rows import BLOCK, BLOCK_LIMIT, GUESS, shift_for
from kernels.divergence_formula import LN2, REVERSE, not_negative, slope_of, term_of
from kernels.formula import LARGEST_SHIFT
from kernels.plan import place
from kernels.simd import constant, element, exp2, fma, load_first, store_first, where_greater, width
from kernels.sparse_formula import (
    IGNORE,
    compared,
    log_of_sum,
    read_teacher,
    slope_of_rest,
    sum_of_exp,
)


class Teacher(NamedTuple):
    """Classes (int64) and log-probabilities (float64), ``top`` of them a position; class -1 is
    padding.
    """

    classes: Any
    log_probs: Any
    top: int


class Sorted(NamedTuple):
    """Memory of each worker: classes in order; log-probabilities by the teacher and the student.
    Each has room for the rest as one more class.
    """

    classes: Any
    teacher: Any
    student: Any


class Tail(NamedTuple):
    """log(sum(exp(x))) over the classes in the gaps, in nats: (log2(total) + shift) * LN2.

    ``odd``: float64 made it, and registers cannot.
    """

    log: float
    shift: float
    log2: float
    odd: bool


@called
def _sum_gaps(x: Any, first: int, most: int, classes: Any, count: int, options: Any) -> Any:
    """``(sum(2**(x * scale - shift)), shift)`` over the classes that are not listed."""
    total, shift, start, guessed = 0.0, 0.0, 0, False
    for k in range(count + 1):
        stop = classes[k] if k < count else most
        while start < stop:
            size = min(BLOCK, stop - start)
            if not guessed:
                shift, guessed = shift_for(x, first + start, min(size, GUESS), options), True
            part = sum_powers(x, first + start, size, options, shift)
            if not part < BLOCK_LIMIT:
                exact = shift_for(x, first + start, size, options)
                total *= 2.0 ** (shift - exact)
                shift = exact
                part = sum_powers(x, first + start, size, options, shift)
            total += part
            start += size
        start = stop + 1
    return total, shift


@called
def _careful_gaps(x: Any, first: int, most: int, classes: Any, count: int, unit: float) -> float:
    """log(sum(exp(unit * x))) over the classes that are not listed, in float64."""
    log, start = -math.inf, 0
    for k in range(count + 1):
        stop = classes[k] if k < count else most
        largest, rest = log_sum(x, first, start, stop, unit)
        other = unit * largest + rest if largest != -math.inf else -math.inf
        if math.isnan(other) or math.isnan(log):
            log = math.nan
        elif other > log:
            log, other = other, log
        if other > -math.inf:
            log += math.log1p(math.exp(other - log))
        start = stop + 1
    return log


@inlined
def _tail_of(x: Any, first: int, most: int, classes: Any, count: int, options: Any) -> Tail:
    if count == most:
        return Tail(-math.inf, 0.0, 0.0, True)
    total, shift = _sum_gaps(x, first, most, classes, count, options)
    if 0.0 < total < math.inf and abs(shift) < LARGEST_SHIFT:
        log2 = math.log2(total)
        return Tail((log2 + shift) * LN2, shift, log2, False)
    unit = options.scale * LN2
    return Tail(_careful_gaps(x, first, most, classes, count, unit), 0.0, 0.0, True)


@called
def _write_gradient(
    x: Any, first: int, out: Any, out_first: int, classes: int, tail: Any, slope: float,
    options: Any,
) -> None:  # fmt: skip
    """Write ``slope`` times each class's share of the rest, as if all classes were of it."""
    if tail.odd:
        unit, shared = options.scale * LN2, tail.log != -math.inf
        for c in range(classes):
            share = math.exp(unit * element(x, first + c) - tail.log) if shared else 0.0
            out[out_first + c] = slope * share if share != 0.0 else 0.0
        return
    scales, minus = constant(x, options.scale), constant(x, -tail.shift)
    zero, least = constant(x, 0.0), least_exponent(x)
    factor = constant(x, slope / 2.0**tail.log2)
    for i in range(0, classes, width(x)):
        t = fma(load_first(x, first + i, classes - i, zero), scales, minus)
        power = where_greater(t, least, exp2(t), zero)
        share = where_greater(power, zero, power * factor, zero)
        store_first(out, out_first + i, classes - i, share)


@called
def _gradient(
    x: Any, first: int, gradient: Any, position: int, classes: Any, teacher: Any, student: Any,
    count: int, number: int, mean: float, left: float, tail: Any, options: Any, factor: float,
) -> None:  # fmt: skip
    rest = 1.0 if options.tail == IGNORE else 0.0
    if rest == 1.0 and options.mode == REVERSE:
        mean += sum_of_exp(student, count)
    of_rest = 0.0
    if number > count:
        of_rest = slope_of(teacher[count], student[count], mean, 0.0, options.mode, options.beta)
    elif rest == 1.0:
        of_rest = slope_of_rest(left, mean, options.mode, options.beta)
    out = place(gradient, position)
    _write_gradient(
        x, first, gradient.data, out, gradient.classes, tail, factor * of_rest, options.p
    )
    for k in range(count):
        slope = slope_of(teacher[k], student[k], mean, rest, options.mode, options.beta)
        gradient.data[out + classes[k]] = factor * slope


@kernel_by_address
def sparse_kernel(share: int, shares: int, packed: Any) -> None:
    """Compute ``share``, of ``shares`` contiguous ones of all positions."""
    _, logits, _, given, constants, results, top, gradient, scratch, _ = unpacked(packed)
    options = options_of(constants)
    own, most = share % scratch.classes.shape[0], logits.classes
    classes, x, factors = scratch.classes[own], logits.data, options.p
    teacher, student = scratch.teacher[own], scratch.student[own]
    for position in range(
        logits.positions * share // shares, logits.positions * (share + 1) // shares
    ):
        if given.kept[position] == 0:
            leave_out(results, gradient, position)
            continue
        weight, first = given.weight[position], place(logits, position)
        count = read_teacher(top, position, most, classes, teacher)
        mass = sum_of_exp(teacher, max(count, 0))
        if count < 0 or not (mass <= 1.0 + options.tolerance or weight == 0.0):
            results.bad[share] = min(results.bad[share], position)
            leave_out(results, gradient, position)
            continue
        y = given.labels[position] if given.labels.size else -1
        unit = factors.scale * LN2
        if options.q.unit != 1.0:  # for RENORMALIZE alone
            for k in range(count):
                teacher[k] *= options.q.unit
            mass = sum_of_exp(teacher, count)
        t_label, s_label, best, best_at = math.nan, 0.0, -math.inf, -1
        for k in range(count):
            student[k] = element(x, first + classes[k]) * unit
            if classes[k] == y and options.q.unit == 1.0:
                t_label = teacher[k]
            if teacher[k] > best or best_at < 0:
                best, best_at = teacher[k], classes[k]
        tail = _tail_of(x, first, most, classes, count, factors)
        whole = log_of_sum(student, count, tail.log)
        for k in range(count):
            student[k] -= whole
        left = tail.log - whole
        if y >= 0:
            s_label = min(0.0, element(x, first + y) * unit - whole)
        listed = log_of_sum(student, count, -math.inf)
        number = compared(teacher, student, count, mass, listed, left, most, options.tail)
        divergence, mean = 0.0, 0.0
        for k in range(number):
            term, part = term_of(teacher[k], student[k], options.mode, options.beta)
            divergence, mean = divergence + term, mean + part
        if options.tail != IGNORE:
            divergence = not_negative(divergence)
        if math.isnan(whole):
            divergence = math.nan
        write_position(results, position, divergence, weight, t_label, s_label, options)
        if results.same_top.size:
            same = best_at >= 0 and prediction(logits, position) == best_at
            results.same_top[position] = -1 if math.isnan(divergence) or best_at < 0 else same
        if gradient.data.size:
            _gradient(
                x, first, gradient, position, classes, teacher, student, count, number, mean,
                left, tail, options, options.upstream * weight,
            )  # fmt: skip
