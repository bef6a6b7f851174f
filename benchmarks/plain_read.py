"""Upper bound: read every byte of an array once, on all threads, and add up its numbers."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import njit, prange

from kernels.simd import constant, load, sum_across, width

_OPTIONS = {"nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def _sum(x: Any, first: int, stop: int) -> float:
    step = width(x)
    a, b, c, d = constant(x, 0.0), constant(x, 0.0), constant(x, 0.0), constant(x, 0.0)
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
def _sum_parts(x: Any, share: int, parts: Any) -> None:
    for part in prange(parts.size):
        parts[part] = _sum(x, part * share, min((part + 1) * share, x.size))


def read_and_sum(x: np.ndarray[Any, Any]) -> float:
    """Sum of a one-dimensional float32 array, in no particular order or precision."""
    threads = numba.get_num_threads()
    parts = np.empty(threads)
    _sum_parts(x, -(-x.size // threads), parts)
    return float(parts.sum())
