"""exp2, log2 and tanh over ``Lanes``, each with its error bound and its source.

exp2: Cody and Waite's reduction, t = n + r with n = rint(t); a polynomial for 2**r on
[-1/2, 1/2]; n added to the result's exponent bits. With ``avx512`` float32 takes n = floor(t),
and r from [0, 1). log2: m in [sqrt(1/2), sqrt(2)) and
log2(m) = 2/ln(2) * atanh(z), z = (m - 1)/(m + 1), by its series; for float32, a polynomial in
m - 1, which spares the division. tanh: a polynomial near 0, and
1 - 2/(e**(2z) + 1) away from it. log1p, from 0 to 1: 2 * atanh(u / (2 + u)) by its series.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from kernels.compiled import by_type, inlined
from kernels.simd import avx512
from kernels.simd.lanes import (
    FLOAT32X16,
    FLOAT64X8,
    biased_exponent,
    centred_exponent,
    centred_mantissa,
    fma,
    mantissa,
    maximum,
    minimum,
    splat,
    subtract,
    times_power,
    where_greater,
)
from kernels.simd.powers import ROUND_FLOAT32, ROUND_FLOAT64

# Minimax in relative error with the constant term held at 1, so that exp2(0) is exactly 1:
# 9.2e-8 exactly, 1.7e-7 (1.4 ulp) as evaluated, over two million points of the interval.
_EXP2_FLOAT32 = tuple(
    np.float32(c) for c in (1.0, 0.69314700, 0.24022242, 0.055507340, 0.0096715111, 0.0013264653)
)
# The same on [0, 1): 8.2e-8 exactly, 1.4e-7 as evaluated.
_EXP2_ABOVE_FLOOR = tuple(
    np.float32(c) for c in (1.0, 0.6931513, 0.2401646, 0.055799514, 0.009017481, 0.0018669525)
)
# Taylor's series: the first term left out, (ln(2)/2)**14 / 14!, is 4e-18.
_EXP2_FLOAT64 = tuple(np.float64(math.log(2) ** k / math.factorial(k)) for k in range(14))
_ZERO_FLOAT32, _ONE_FLOAT32 = np.float32(0), np.float32(1)
# 2/ln(2) / (2k + 1); |z| <= 0.1716, so the first term left out is below 2e-18 of the first.
_SQRT2 = math.sqrt(2)
_LOG2 = tuple(2 / math.log(2) / (2 * k + 1) for k in range(11))
# log2(1 + u) = u * P(u) on [sqrt(1/2) - 1, sqrt(2) - 1]: minimax in relative error, 4.1e-9.
_LOG2_FLOAT32 = (
    1.4426950408299049,
    -0.7213473514989165,
    0.48089824106617685,
    -0.36069664959128767,
    0.2885674081290606,
    -0.23961739857830722,
    0.2046006196372215,
    -0.19106279780347576,
    0.18617499047211952,
    -0.10994948567179505,
)
# The same for float32 lanes: 1.7e-7 exactly, 3.1e-7 as evaluated.
_LOG2_IN_FLOAT32 = tuple(
    np.float32(c)
    for c in (
        1.442694962006642,
        -0.7213527882034596,
        0.48092323842877643,
        -0.36023962840947077,
        0.28709881195823095,
        -0.2488771314394785,
        0.2340415547910583,
        -0.14580978478570994,
    )
)

# 2 / (2k + 1); s = u / (2 + u) <= 1/3, so the first term left out is 1.4e-9 of the first in float32
# (9**-8 / 17), and 2e-19 in float64.
_LOG1P = tuple(2 / (2 * k + 1) for k in range(18))
_LOG1P_TERMS = {FLOAT32X16: 8, FLOAT64X8: 18}

# tanh(z) = z + z * s * P(s), s = z*z, for abs(z) < 0.625: Chebyshev fits of P, within 1.7e-8 of
# tanh in float32 and 2e-18 in float64.
_NEAR = 0.625
_TANH_FLOAT32 = tuple(
    np.float32(c) for c in (-0.33333329, 0.13332770, -0.053850910, 0.020997179, -0.0060967142)
)
_TANH_FLOAT64 = (
    -0.3333333333333333,
    0.13333333333333042,
    -0.05396825396789699,
    0.021869488519008305,
    -0.008863235103240878,
    0.0035921217511549622,
    -0.001455775412047804,
    0.0005896606577756978,
    -0.00023759064960553755,
    9.257116129553425e-05,
    -3.120110142576322e-05,
    6.485163482777922e-06,
)


@by_type
def exp2(t: Any) -> Any:
    """2**t in each lane; NaN stays NaN.

    Outside of the normal range either t is clamped to it, or (``avx512``) denormal, 0 or infinite.
    Largest relative error 1.7e-7 in float32 and 3e-16 in float64.
    """
    return _exp2_by_avx512(t) if avx512.AVAILABLE else _exp2_by_bits(t)


@by_type
def exp2_four(a: Any, b: Any, c: Any, d: Any) -> Any:
    """``exp2`` of four registers; where they are whole ones, each step of all four before the next.

    A step waits for the one before, and a processor looks only some instructions ahead for others:
    a sum of bfloat16's took 0.91 ns a register, and 1.07 one after the other (EPYC, family 26).
    """
    if avx512.AVAILABLE:

        def at_once(a: Any, b: Any, c: Any, d: Any) -> Any:
            return exp2((a, b, c, d))

        return at_once

    def one_by_one(a: Any, b: Any, c: Any, d: Any) -> Any:
        return exp2(a), exp2(b), exp2(c), exp2(d)

    return one_by_one


def _exp2_by_avx512(t: Any) -> Any:
    above_floor, off_nearest, scaled = avx512.above_floor, avx512.off_nearest, avx512.scaled
    t = t.dtype if isinstance(t, types.UniTuple) else t  # the same steps, of each
    if t == FLOAT32X16:
        c0, c1, c2, c3, c4, c5 = _EXP2_ABOVE_FLOOR

        def exp2_float32(t: Any) -> Any:
            r = above_floor(t)
            p = fma(splat(c5), r, splat(c4))
            p = fma(p, r, splat(c3))
            p = fma(p, r, splat(c2))
            p = fma(p, r, splat(c1))
            p = fma(p, r, splat(c0))
            return scaled(p, t)

        return exp2_float32
    if t == FLOAT64X8:
        coefficients = _EXP2_FLOAT64
        last = len(coefficients) - 1

        def exp2_float64(t: Any) -> Any:
            r = off_nearest(t)
            p = fma(splat(coefficients[last]), r, splat(coefficients[last - 1]))
            for k in range(last - 2, -1, -1):
                p = fma(p, r, splat(coefficients[k]))
            return scaled(p, subtract(t, r))

        return exp2_float64
    return None


def _exp2_by_bits(t: Any) -> Any:
    if t == FLOAT32X16:
        c0, c1, c2, c3, c4, c5 = _EXP2_FLOAT32
        low, high, magic = np.float32(-126), np.float32(127), ROUND_FLOAT32

        def exp2_float32(t: Any) -> Any:
            t = minimum(splat(high), maximum(splat(low), t))
            rounded = t + splat(magic)
            r = t - (rounded - splat(magic))
            p = fma(splat(c5), r, splat(c4))
            p = fma(p, r, splat(c3))
            p = fma(p, r, splat(c2))
            p = fma(p, r, splat(c1))
            p = fma(p, r, splat(c0))
            return times_power(p, rounded)

        return exp2_float32
    if t == FLOAT64X8:
        coefficients = _EXP2_FLOAT64
        low64, high64, magic64 = np.float64(-1022), np.float64(1023), ROUND_FLOAT64
        last = len(coefficients) - 1

        def exp2_float64(t: Any) -> Any:
            t = minimum(splat(high64), maximum(splat(low64), t))
            rounded = t + splat(magic64)
            r = t - (rounded - splat(magic64))
            p = splat(coefficients[last])
            for k in range(last - 1, -1, -1):
                p = fma(p, r, splat(coefficients[k]))
            return times_power(p, rounded)

        return exp2_float64
    return None


@inlined
def _halves(x: Any) -> Any:
    """``(m, e)`` with x = m * 2**e and m in [sqrt(1/2), sqrt(2)), for positive normal x."""
    one, root = splat(1.0), splat(_SQRT2)
    m = mantissa(x)
    e = biased_exponent(x) - splat(1023.0)
    e = where_greater(m, root, e + one, e)
    return where_greater(m, root, m * splat(0.5), m), e


@inlined
def log2(x: Any) -> Any:
    """log2 of each float64 lane, for positive normal x; otherwise see ``take_logarithms``.

    Largest error 2 ulp of max(|log2(x)|, 1); log2(1) is exactly 0.
    """
    m, e = _halves(x)
    z = (m - splat(1.0)) / (m + splat(1.0))
    square = z * z
    p = splat(_LOG2[10])
    for k in range(9, -1, -1):
        p = fma(p, square, splat(_LOG2[k]))
    return fma(p, z, e)


@inlined
def log2_float32(x: Any) -> Any:
    """``log2`` with a relative error of up to 4.1e-9, a sixteenth of float32's rounding."""
    m, e = _halves(x)
    u = m - splat(1.0)
    p = splat(_LOG2_FLOAT32[9])
    for k in range(8, -1, -1):
        p = fma(p, u, splat(_LOG2_FLOAT32[k]))
    return fma(p, u, e)


@inlined
def log2_above(x: Any, t: Any) -> Any:
    """log2(x) - t in float32 lanes, for positive normal x; NaN where either is NaN or infinite.

    Largest error 1 ulp of the difference and 1.6e-7: the exponent of x less t is kept in two parts,
    and rounded once, after the mantissa's logarithm is added.
    """
    u, e = centred_mantissa(x) - splat(_ONE_FLOAT32), centred_exponent(x)
    p = splat(_LOG2_IN_FLOAT32[7])
    for k in range(6, -1, -1):
        p = fma(p, u, splat(_LOG2_IN_FLOAT32[k]))
    most = e - t
    least = (e - most) - t
    # The bits of NaN and infinity mean another number; this product keeps them, as NaN.
    return fma(p, u, fma(x, splat(_ZERO_FLOAT32), least)) + most


@by_type
def log1p(u: Any) -> Any:
    """log(1 + u) in each lane, for u from 0 to 1; NaN stays NaN.

    Largest relative error 2.5e-7 in float32 and 5e-16 in float64.
    """
    scalar = np.float32 if u == FLOAT32X16 else np.float64
    coefficients = tuple(scalar(c) for c in _LOG1P[: _LOG1P_TERMS[u]])
    last, two = len(coefficients) - 1, scalar(2)

    def log1p_lanes(u: Any) -> Any:
        s = u / (u + splat(two))
        square = s * s
        p = splat(coefficients[last])
        for k in range(last - 1, -1, -1):
            p = fma(p, square, splat(coefficients[k]))
        return s * p

    return log1p_lanes


@by_type
def tanh(z: Any) -> Any:
    """Tanh in each lane; NaN stays NaN. Largest error 1.5e-7 in float32 and 4e-16 in float64."""
    coefficients = _TANH_FLOAT32 if z == FLOAT32X16 else _TANH_FLOAT64
    scalar = np.float32 if z == FLOAT32X16 else np.float64
    last, near, double_log2e = len(coefficients) - 1, scalar(_NEAR), scalar(2 / math.log(2))
    one, two = scalar(1), scalar(2)

    def tanh_lanes(z: Any) -> Any:
        square = z * z
        p = splat(coefficients[last])
        for k in range(last - 1, -1, -1):
            p = fma(p, square, splat(coefficients[k]))
        small = fma(p, z * square, z)
        large = splat(one) - splat(two) / (exp2(z * splat(double_log2e)) + splat(one))
        return where_greater(splat(near * near), square, small, large)

    return tanh_lanes
