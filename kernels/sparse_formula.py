"""Sparse teacher of one position, in scalar float64: functions of both targets.

The position's classes are sorted, and the rest of the classes may count as one more. As in
``formula``, no function may call another.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import inlined

BUCKET, IGNORE, RENORMALIZE = range(3)
# A rest of the teacher below this is what rounding leaves of a mass of 1, where the student has no
# rest: float32 log-probabilities down to -8 are off by 2**-22, and the mass by no more.
NO_REST = 2.0**-20
# Ciura, "Best Increments for the Average Case of Shellsort", 2001, continued by factors of 2.25.
_GAPS = (28983, 12882, 5724, 2544, 1130, 502, 223, 99, 44, 19, 8, 3, 1)


@inlined
def read_teacher(teacher: Any, position: int, most: int, classes: Any, values: Any) -> int:
    """Copy a position's classes and log-probabilities, sorted by class; return their number.

    -1 where a class is not below ``most`` or is there twice. ``teacher`` has ``top`` of them a
    position, of which class -1 is padding.
    """
    count, first = 0, position * teacher.top
    for k in range(first, first + teacher.top):
        c = teacher.classes[k]
        if c == -1:
            continue
        if c < 0 or c >= most or count == most:  # more than there are: one is there twice
            return -1
        classes[count], values[count] = c, teacher.log_probs[k]
        count += 1
    # Shell's sort: top classes are few, or sorted already.
    for gap in _GAPS:
        for i in range(gap, count):
            own, value, at = classes[i], values[i], i
            while at >= gap and classes[at - gap] > own:
                classes[at], values[at] = classes[at - gap], values[at - gap]
                at -= gap
            classes[at], values[at] = own, value
    for k in range(1, count):
        if classes[k] == classes[k - 1]:
            return -1
    return count


@inlined
def sum_of_exp(values: Any, count: int) -> float:
    """sum(exp(values)) of the first ``count``."""
    total = 0.0
    for k in range(count):
        total += math.exp(values[k])
    return total


@inlined
def log_of_sum(values: Any, count: int, other: float) -> float:
    """log(exp(other) + sum(exp(values))); NaN of a NaN or +inf, or of nothing but -inf."""
    largest, total = other, 0.0
    for k in range(count):
        if values[k] > largest or math.isnan(values[k]):
            largest = values[k]
    if not abs(largest) < math.inf:
        return math.nan
    for k in range(count):
        total += math.exp(values[k] - largest)
    return largest + math.log(total + math.exp(other - largest))


@inlined
def compared(
    teacher: Any, student: Any, count: int, mass: float, log_listed: float, left: float, most: int,
    tail: int,
) -> int:  # fmt: skip
    """Number of classes to compare after ``tail``, the rest as one of them; normalises in place.

    ``mass`` is the teacher's probability of the ``count`` listed classes, of ``most``;
    ``log_listed`` the logarithm of the student's, and ``left`` that of its probability of the rest.
    Where that is 0 in float64, a rest of the teacher below NO_REST counts as none.
    """
    whole, nothing = tail == BUCKET and count == most, mass > 1.0
    if mass > 1.0 - NO_REST and math.exp(left) == 0.0:
        nothing = True
    if (tail == RENORMALIZE or whole or (tail == BUCKET and nothing)) and count > 0:
        by = math.log(mass) if mass > 0.0 else -math.inf
        for k in range(count):
            teacher[k] -= by
            if tail == RENORMALIZE:
                student[k] -= log_listed
        mass = 1.0
    if tail != BUCKET or whole:
        return count
    teacher[count] = math.log1p(-mass) if mass < 1.0 else -math.inf
    student[count] = left
    return count + 1


@inlined
def slope_of_rest(left: float, mean: float, mode: int, beta: float) -> float:
    """Derivative by the scaled logits of classes that IGNORE leaves out, in all.

    ``left`` is the logarithm of the student's probability of them, ``mean`` as in ``slope_of``.
    """
    slope = math.exp(left) * mean
    if mode == 0:
        return slope
    return -slope if mode == 1 else -(1.0 - beta) * slope
