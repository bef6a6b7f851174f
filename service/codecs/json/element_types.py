"""Types of the elements that kernels read a tensor's JSON text into."""

from __future__ import annotations

from typing import Any, NamedTuple

# Kinds of elements, one for each of the output arrays.
FLOAT32, FLOAT64, NARROW, INT64 = range(4)


class Target(NamedTuple):
    """Type of an element: one of the kinds, and for NARROW its fraction bits and bias.

    A finite number of ``limit`` or more would round to infinity, and is refused. ``boolean``: true
    and false are read as 1 and 0, for kinds of floats.
    """

    kind: int
    fraction: int
    bias: int
    limit: float
    boolean: int = 0


class Outputs(NamedTuple):
    """Contiguous output array of each kind; only that of the target is not empty."""

    float32: Any
    float64: Any
    narrow: Any
    int64: Any
