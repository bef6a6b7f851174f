"""Limits of a case on this machine: a read of its bytes where they are, and its exponentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.plain_read import exponentials, read_and_sum
from benchmarks.problems import Data

# Bytes: cases of fewer logits are limited by Python.
LEAST = 4096
# Bytes that a launch reads at least, again and again if need be: 1 ms, and the launch 5 us.
_LAUNCH = 2**26
# A call, its error, and how many times it does the work of the case.
Limit = tuple[Callable[[], Any], Callable[[Any], float], float]


def plain_read(data: Data) -> Limit:
    """Read logits and labels, in the place where they are; a gradient's write counts as a read."""
    numbers = data.logits.reshape(-1).view(np.float32)  # 16-bit ones in pairs
    labels = np.ones(data.labels.nbytes // 4, np.float32)
    exact = float(numbers.sum(dtype=np.float64) + labels.sum(dtype=np.float64))
    size = float(np.abs(numbers).sum(dtype=np.float64) + np.abs(labels).sum(dtype=np.float64))
    read = numbers.nbytes + labels.nbytes
    times = max(1, _LAUNCH // read)
    moved = read + (numbers.nbytes if data.case.wants == "gradient" else 0)
    return (
        lambda: read_and_sum(numbers, labels, times),
        lambda total: abs(total - exact) / size,
        times * read / moved,
    )


def in_l1(data: Data) -> Limit:
    """As many exponentials as there are logits, of numbers in L1."""
    wanted = max(data.logits.size, _LAUNCH // 4)
    done = exponentials(wanted)
    return lambda: exponentials(wanted), lambda each: float(each != done), done / data.logits.size
