"""Divergence kernel of the device, for dense targets and sparse teachers."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

from numba import cuda, types

from kernels import divergence_formula, sparse_formula
from kernels.cuda.kinds import TABLE, target
from kernels.sparse_formula import IGNORE

device, element = target.device, target.element
term_of, slope_of = device(divergence_formula.term_of), device(divergence_formula.slope_of)
not_negative = device(divergence_formula.not_negative)
weighed = device(divergence_formula.weighed)
read_teacher, compared = device(sparse_formula.read_teacher), device(sparse_formula.compared)
sum_of_exp, log_of_sum = device(sparse_formula.sum_of_exp), device(sparse_formula.log_of_sum)
slope_of_rest = device(sparse_formula.slope_of_rest)


class Arguments(NamedTuple):
    """Arguments of the kernel. Arrays are on the device; unwanted ones are empty.

    ``most`` is the number of classes, ``top`` that of a sparse teacher, or 0; ``unit`` and
    ``target_unit`` are the inverse temperatures. ``sorted``, ``teacher`` and ``student`` are a
    sparse teacher's scratch. The others are those of the CPU's ``divergence`` and ``Divergence``.
    """

    most: int
    top: int
    unit: float
    target_unit: float
    mode: int
    beta: float
    tail: int
    factor: float
    upstream: float
    tolerance: float
    logits: Any
    targets: Any
    kept: Any
    weight: Any
    labels: Any
    classes: Any
    log_probs: Any
    losses: Any
    label_log_probs: Any
    target_label_log_probs: Any
    same_top: Any
    gradient: Any
    sorted: Any
    teacher: Any
    student: Any
    status: Any


@target.team
def in_block(values: Any, value: float, largest: bool) -> float:
    """Sum, or the largest, of each thread's ``value``; NaN if any is. ``values`` is shared."""
    thread, count = cuda.threadIdx.x, cuda.blockDim.x
    values[thread] = value
    cuda.syncthreads()
    while count > 1:
        count //= 2
        if thread < count:
            own, other = values[thread], values[thread + count]
            if not largest:
                values[thread] = own + other
            elif other > own or math.isnan(other):
                values[thread] = other
        cuda.syncthreads()
    found = values[0]
    cuda.syncthreads()
    return float(found)


@device
def listed_at(classes: Any, count: int, c: int) -> int:
    """Place of ``c`` in the sorted ``classes``, or -1."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if classes[middle] < c:
            low = middle + 1
        else:
            high = middle
    return low if low < count and classes[low] == c else -1


@target.team
def log_sum(
    values: Any, data: Any, first: int, unit: float, listed: Any, count: int, most: int
) -> Any:
    """``(largest, rest)``: log(sum(exp(unit * x))) = unit * largest + rest over all classes but the
    ``count`` first of ``listed``; NaN with a NaN or +inf. ``rest`` is 0 of nothing but -inf.
    """
    largest = -math.inf
    for c in range(cuda.threadIdx.x, most, cuda.blockDim.x):
        if listed_at(listed, count, c) < 0:
            value = float(element(data, first + c))
            if value > largest or math.isnan(value):
                largest = value
    largest = in_block(values, largest, True)
    if not largest < math.inf:
        return math.nan, math.nan
    if largest == -math.inf:
        return largest, 0.0
    total = 0.0
    for c in range(cuda.threadIdx.x, most, cuda.blockDim.x):
        if listed_at(listed, count, c) < 0:
            total += math.exp(unit * (float(element(data, first + c)) - largest))
    return largest, math.log(in_block(values, total, False))


@target.team
def likeliest(values: Any, data: Any, first: int, most: int) -> int:
    """Class of the largest element, the first of equals."""
    largest = -math.inf
    for c in range(cuda.threadIdx.x, most, cuda.blockDim.x):
        largest = max(largest, float(element(data, first + c)))
    largest = in_block(values, largest, True)
    before = 0.0
    for c in range(cuda.threadIdx.x, most, cuda.blockDim.x):
        if float(element(data, first + c)) == largest:
            before = max(before, float(most - c))
    return most - int(in_block(values, before, True))


@device
def log_prob(data: Any, at: int, unit: float, largest: float, rest: float) -> float:
    """Log-probability of one element, from ``log_sum``."""
    return unit * (float(element(data, at)) - largest) - rest


@target.team
def leave_out(a: Any, position: int) -> None:
    """Write the results of a position that does not count."""
    if cuda.threadIdx.x == 0:
        a.losses[position] = 0.0
        if a.same_top.size:
            a.same_top[position] = -1
        if a.label_log_probs.size:
            a.label_log_probs[position] = 0.0
            a.target_label_log_probs[position] = 0.0
    if a.gradient.size:
        for c in range(cuda.threadIdx.x, a.most, cuda.blockDim.x):
            a.gradient[position * a.most + c] = 0.0


@target.team
def dense_position(a: Any, position: int, values: Any) -> None:
    """Compute a position with dense targets."""
    first, most, thread = position * a.most, a.most, cuda.threadIdx.x
    nothing, factor = a.sorted[position], a.upstream * a.weight[position]
    peak, rest = log_sum(values, a.logits, first, a.unit, nothing, 0, most)
    t_peak, t_rest = log_sum(values, a.targets, first, a.target_unit, nothing, 0, most)
    if a.tolerance < math.inf and a.weight[position] != 0.0:
        plain, plain_rest = log_sum(values, a.targets, first, 1.0, nothing, 0, most)
        total = math.exp(min(plain + plain_rest, 700.0))
        if not abs(total - 1.0) <= a.tolerance and thread == 0:
            cuda.atomic.min(a.status, 0, position)
    if not (peak > -math.inf and t_peak > -math.inf):
        peak = math.nan
    divergence, mean = 0.0, 0.0
    for c in range(thread, most, cuda.blockDim.x):
        s = log_prob(a.logits, first + c, a.unit, peak, rest)
        t = log_prob(a.targets, first + c, a.target_unit, t_peak, t_rest)
        term, part = term_of(t, s, a.mode, a.beta)
        divergence, mean = divergence + term, mean + part
    divergence, mean = in_block(values, divergence, False), in_block(values, mean, False)
    divergence = math.nan if math.isnan(peak) else not_negative(divergence)
    if thread == 0:
        a.losses[position] = weighed(divergence, a.weight[position], a.factor)
        if a.label_log_probs.size:
            at = first + a.labels[position]
            a.label_log_probs[position] = log_prob(a.logits, at, a.unit, peak, rest)
            a.target_label_log_probs[position] = log_prob(
                a.targets, at, a.target_unit, t_peak, t_rest
            )
    if a.same_top.size:
        own = likeliest(values, a.logits, first, most)
        other = likeliest(values, a.targets, first, most)
        if thread == 0:
            a.same_top[position] = -1 if math.isnan(divergence) else int(own == other)
    if a.gradient.size:
        for c in range(thread, most, cuda.blockDim.x):
            s = log_prob(a.logits, first + c, a.unit, peak, rest)
            t = log_prob(a.targets, first + c, a.target_unit, t_peak, t_rest)
            a.gradient[first + c] = factor * slope_of(t, s, mean, 0.0, a.mode, a.beta)


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


@lru_cache
def divergence_kernel() -> Any:
    """Kernel that computes a position a block."""
    threads = TABLE.threads  # a constant: the size of a shared array is compiled in

    @target.kernel(threads)
    def compute_divergence(a: Any) -> None:
        values = cuda.shared.array(threads, types.float64)
        position = cuda.blockIdx.x
        if a.kept[position] == 0:
            leave_out(a, position)
        elif a.top > 0:
            sparse_position(a, position, values)
        else:
            dense_position(a, position, values)

    return compute_divergence
