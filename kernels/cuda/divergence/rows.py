"""Sums over a row's classes by a block of threads, and the results of a row that does not count."""

from __future__ import annotations

import math
from typing import Any

from numba import cuda

from kernels.cuda.kinds import target

device, element = target.device, target.element


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
