"""Integers and powers of two in float lanes."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.compiled import by_type, inlined
from kernels.simd import avx512
from kernels.simd.lanes import FLOAT32X16, fma, maximum, splat, times_power

# Adding 1.5 * 2**23 (2**52) rounds to an integer and leaves it in the low bits of the mantissa.
ROUND_FLOAT32 = np.float32(1.5 * 2**23)
ROUND_FLOAT64 = np.float64(1.5 * 2**52)


@by_type
def nearest(t: Any) -> Any:
    """Nearest integer in each lane, ties to even, for abs(t) <= 2**22 (2**51)."""
    magic = ROUND_FLOAT32 if t == FLOAT32X16 else ROUND_FLOAT64

    def add_and_take(t: Any) -> Any:
        return (t + splat(magic)) - splat(magic)

    return add_and_take


@inlined
def nearest_product(a: Any, b: Any) -> Any:
    """Nearest integer to a * b in each float32 lane, for abs(a * b) <= 2**22."""
    return fma(a, b, splat(ROUND_FLOAT32)) - splat(ROUND_FLOAT32)


@by_type
def scaled_down(value: Any, power: Any) -> Any:
    """``value`` times 2**power in float32 lanes, for integers that are not above 0.

    Exact where the result is normal; below that it is no more than the least normal number.
    """
    if avx512.AVAILABLE:
        scaled = avx512.scaled

        def by_avx512(value: Any, power: Any) -> Any:
            return scaled(value, power)

        return by_avx512
    low, one, magic = np.float32(-126), np.float32(1), ROUND_FLOAT32

    def by_bits(value: Any, power: Any) -> Any:
        return value * times_power(splat(one), maximum(splat(low), power) + splat(magic))

    return by_bits
