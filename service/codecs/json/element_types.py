"""What the elements of a tensor's JSON text become, as kernels are told."""

from __future__ import annotations

from typing import Any, NamedTuple

# What an element becomes, and so which of the output arrays is filled.
FLOAT32, FLOAT64, NARROW, INT64 = range(4)


class Target(NamedTuple):
    """What an element becomes: one of the kinds, and for NARROW its fraction bits and bias.

    A finite number of ``limit`` or more would round to infinity: it is refused. ``boolean``: true
    and false are 1 and 0, where they are floats.
    """

    kind: int
    fraction: int
    bias: int
    limit: float
    boolean: int = 0


class Outputs(NamedTuple):
    """One contiguous array for each kind; those of other kinds are empty."""

    float32: Any
    float64: Any
    narrow: Any
    int64: Any
