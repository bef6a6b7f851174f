"""Upper bounds: read every byte of some arrays on all threads; exponentials of numbers in L1."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import njit, prange

from kernels.simd import constant, exp2, fma, load, sum_across, width

_OPTIONS = {"nogil": True, "error_model": "numpy"}
# Numbers whose exponentials are taken again and again: 16 KB, half of a small L1.
IN_L1 = 4096


@njit(**_OPTIONS)
def _sum(x: Any, first: int, stop: int, total: float) -> float:
    step = width(x)
    a, b, c, d = constant(x, total), constant(x, 0.0), constant(x, 0.0), constant(x, 0.0)
    whole = first + (stop - first) // (4 * step) * (4 * step)
    for i in range(first, whole, 4 * step):
        a = a + load(x, i)
        b = b + load(x, i + step)
        c = c + load(x, i + 2 * step)
        d = d + load(x, i + 3 * step)
    total = float(sum_across((a + b) + (c + d)))
    for i in range(whole, stop):
        total += x[i]
    return total


@njit(parallel=True, **_OPTIONS)
def _sum_parts(x: Any, y: Any, times: int, parts: Any) -> None:
    count = parts.size
    for part in prange(count):
        total = 0.0
        for _ in range(times):  # each begins with the sum before, or it would be computed once
            total = _sum(x, x.size * part // count, x.size * (part + 1) // count, 0.0 * total)
            total += _sum(y, y.size * part // count, y.size * (part + 1) // count, 0.0 * total)
        parts[part] = total


def read_and_sum(
    x: np.ndarray[Any, Any], y: np.ndarray[Any, Any] | None = None, times: int = 1
) -> float:
    """Sum of one-dimensional float32 arrays, in no particular order or precision.

    They are read ``times``, one after the other, within one launch.
    """
    parts = np.empty(numba.get_num_threads())
    _sum_parts(x, x[:0] if y is None else y, times, parts)
    return float(parts.sum())


@njit(parallel=True, **_OPTIONS)
def _take_exponentials(x: Any, scale: float, shift: float, times: int, parts: Any) -> None:
    for part in prange(parts.size):
        step, scales, shifts = width(x), constant(x, scale), constant(x, shift)
        a, b, c, d = constant(x, 0.0), constant(x, 0.0), constant(x, 0.0), constant(x, 0.0)
        for _ in range(times):
            for i in range(0, x.size, 4 * step):
                a = a + exp2(fma(load(x, i), scales, shifts))
                b = b + exp2(fma(load(x, i + step), scales, shifts))
                c = c + exp2(fma(load(x, i + 2 * step), scales, shifts))
                d = d + exp2(fma(load(x, i + 3 * step), scales, shifts))
        parts[part] = sum_across((a + b) + (c + d))


def exponentials(count: int) -> int:
    """Take at least ``count`` exponentials of float32 numbers in L1, on all threads: how many."""
    x, parts = np.zeros(IN_L1, np.float32), np.empty(numba.get_num_threads())
    times = math.ceil(count / (parts.size * IN_L1))
    _take_exponentials(x, math.log2(math.e), -1.0, times, parts)
    return times * parts.size * IN_L1


def sum_plainly(x: np.ndarray[Any, Any]) -> float:
    """Sum of a one-dimensional float32 array, on one thread."""
    return float(_sum(x, 0, x.size, 0.0))
