"""Divergence of a position from a sparse teacher, with its outputs."""

from __future__ import annotations

import math
from typing import Any

from numba import cuda

from kernels import divergence_formula
from kernels.cuda.divergence.formula import (
    compared,
    log_of_sum,
    not_negative,
    read_teacher,
    slope_of,
    slope_of_rest,
    sum_of_exp,
    term_of,
    weighed,
)
from kernels.cuda.divergence.rows import in_block, leave_out, likeliest, listed_at, log_sum
from kernels.cuda.kinds import target
from kernels.sparse_formula import IGNORE

element = target.element


@target.team
def sparse_position(a: Any, position: int, values: Any) -> None:
    """Compute a position with a sparse teacher."""
    first, most, thread = position * a.most, a.most, cuda.threadIdx.x
    listed, teacher, student = a.sorted[position], a.teacher[position], a.student[position]
    found, weight = 0.0, a.weight[position]
    if thread == 0:
        found = float(read_teacher(a, position, most, listed, teacher))
    count = int(in_block(values, found, False))
    mass = sum_of_exp(teacher, max(count, 0))
    if count < 0 or not (mass <= 1.0 + a.tolerance or weight == 0.0):
        if thread == 0:
            cuda.atomic.min(a.status, 0, position)
        leave_out(a, position)
        return
    peak, rest = log_sum(values, a.logits, first, a.unit, listed, count, most)
    tail = -math.inf if peak == -math.inf else a.unit * peak + rest
    y = a.labels[position] if a.labels.size else -1
    divergence, mean, number, whole, best = 0.0, 0.0, count, 0.0, -1
    if thread == 0:
        for k in range(count):
            student[k] = a.unit * float(element(a.logits, first + listed[k]))
            if best < 0 or teacher[k] > teacher[best]:
                best = k
        whole = log_of_sum(student, count, tail)
        if a.label_log_probs.size:
            at = listed_at(listed, count, y)
            known = at >= 0 and a.target_unit == 1.0
            own = a.unit * float(element(a.logits, first + max(y, 0)))
            a.target_label_log_probs[position] = teacher[at] if known else math.nan
            a.label_log_probs[position] = min(0.0, own - whole)
        for k in range(count):
            student[k] -= whole
            teacher[k] *= a.target_unit
        mass = sum_of_exp(teacher, count)
        logs = log_of_sum(student, count, -math.inf)
        left = tail - whole
        number = compared(teacher, student, count, mass, logs, left, most, a.tail)
        for k in range(number):
            term, part = term_of(teacher[k], student[k], a.mode, a.beta)
            divergence, mean = divergence + term, mean + part
        if a.tail != IGNORE:
            divergence = not_negative(divergence)
        if math.isnan(whole):
            divergence = math.nan
        a.losses[position] = weighed(divergence, a.weight[position], a.factor)
    if a.same_top.size:
        own_best = likeliest(values, a.logits, first, most)
        if thread == 0:
            unknown = math.isnan(divergence) or best < 0
            a.same_top[position] = -1 if unknown else int(listed[best] == own_best)
    if a.gradient.size:
        whole, mean = in_block(values, whole, False), in_block(values, mean, False)
        more = int(in_block(values, float(number) if thread == 0 else 0.0, False)) > count
        sparse_gradient(a, position, count, more, mean, tail - whole, tail)


@target.team
def sparse_gradient(
    a: Any, position: int, count: int, more: bool, mean: float, left: float, tail: float
) -> None:
    """Write the gradient of a position; ``more``: the rest counts as a class."""
    first, factor = position * a.most, a.upstream * a.weight[position]
    listed, teacher, student = a.sorted[position], a.teacher[position], a.student[position]
    rest = 1.0 if a.tail == IGNORE else 0.0
    if rest == 1.0 and a.mode == divergence_formula.REVERSE:
        mean += sum_of_exp(student, count)
    of_rest = 0.0
    if more:
        of_rest = slope_of(teacher[count], student[count], mean, 0.0, a.mode, a.beta)
    elif rest == 1.0:
        of_rest = slope_of_rest(left, mean, a.mode, a.beta)
    for c in range(cuda.threadIdx.x, a.most, cuda.blockDim.x):
        at = listed_at(listed, count, c)
        if at >= 0:
            slope = slope_of(teacher[at], student[at], mean, rest, a.mode, a.beta)
        else:
            gap = a.unit * float(element(a.logits, first + c)) - tail
            share = math.exp(gap) if tail > -math.inf else 0.0
            slope = of_rest * share if share != 0.0 else 0.0
        a.gradient[first + c] = factor * slope
