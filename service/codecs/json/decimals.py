"""Decimal numbers to the nearest float64, and float64 to 16-bit floats, inside Numba kernels.

Up to 2**53 with a power of ten up to 10**22, one operation on exact float64s rounds correctly
(W. Clinger, "How to read floating point numbers accurately", 1990). Up to 19 digits, 128 bits of
the power of five decide (D. Lemire, "Number parsing at a gigabyte per second", 2021; that nothing
needs more: N. Mushtak and D. Lemire, "Fast number parsing without fallback", 2023). The rest is in
``long_decimals``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.compiled import inlined
from service.codecs.json.bits import U64, from_bits, leading_zeros, product, to_bits

MOST_DIGITS = 19  # digits that always fit 64 bits
FRACTION, BIAS = 52, 1023

_INFINITE = 2047  # the exponent field of infinity
_LEAST_POWER, _GREATEST_POWER = -342, 308  # powers of ten; beyond, 19 digits make 0 or infinity
_TENS = 10.0 ** np.arange(23)


def _powers_of_five() -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Compute the 128 leading bits of 5**q, as a high and a low word, for every q that matters.

    They are cut off, except that reciprocals of powers that fit a word (q >= -27) are rounded up,
    as the proof of Lemire 2021 (section 5 and appendix B) requires.
    """
    words = []
    for q in range(_LEAST_POWER, _GREATEST_POWER + 1):
        power = 5 ** abs(q)
        if q >= 0:
            top = (power << 128) >> power.bit_length()
        else:
            top = (1 << ((power - 1).bit_length() + 127)) // power + (q >= -27)
        words.append((top >> 64, top & (2**64 - 1)))
    return np.array(words, U64)


_FIVES = _powers_of_five()


@inlined
def _lemire(w: Any, q: int) -> float:
    """Round w * 10**q to the nearest float64 (ties to even); infinity if it overflows."""
    if w == U64(0) or q < _LEAST_POWER:
        return 0.0
    if q > _GREATEST_POWER:
        return np.inf
    zeros = leading_zeros(w)
    w <<= U64(zeros)
    five = U64(q - _LEAST_POWER)
    high, low = product(w, _FIVES[five, U64(0)])
    if high & U64(0x1FF) == U64(0x1FF):
        # The product's lower half may carry into the bits that are kept.
        carry, _ = product(w, _FIVES[five, U64(1)])
        low += carry
        high += U64(low < carry)
    upper = high >> U64(63)
    shift = upper + U64(64 - FRACTION - 3)
    fraction = high >> shift
    exponent = ((217706 * q) >> 16) + 63 + np.int64(upper) - zeros + BIAS
    if exponent <= 0:
        if exponent < -62:
            return 0.0
        fraction >>= U64(1 - exponent)
        fraction = (fraction + (fraction & U64(1))) >> U64(1)
        return from_bits(fraction)
    halfway = low <= U64(1) and -4 <= q <= 23 and fraction & U64(3) == U64(1)
    if halfway and fraction << shift == high:
        fraction &= ~U64(1)
    fraction = (fraction + (fraction & U64(1))) >> U64(1)
    # A fraction of 1.0 has its bit 52 set, which adds the one that the exponent is short of.
    if exponent + np.int64(fraction >> U64(FRACTION + 1)) >= _INFINITE:
        return np.inf
    return from_bits(fraction + (U64(exponent - 1) << U64(FRACTION)))


@inlined
def to_float(w: Any, q: int) -> float:
    """Round as ``_lemire``, for ``w`` of at most 19 digits; exact arithmetic decides easy ones."""
    if w <= U64(1 << (FRACTION + 1)) and -22 <= q <= 22:
        value = np.float64(w)
        return value / _TENS[-q] if q < 0 else value * _TENS[q]
    return _lemire(w, q)


@inlined
def narrow(value: float, fraction: int, bias: int) -> Any:
    """Round ``value`` (ties to even) to a 16-bit float of so many fraction bits: its bits."""
    bits = to_bits(value)
    sign = bits >> U64(63) << U64(15)
    magnitude = bits & U64(2**63 - 1)
    infinity = U64(2 * bias + 1) << U64(fraction)
    if np.isnan(value):
        return np.uint16(infinity | U64(1) << U64(fraction - 1))
    if magnitude < U64(BIAS - bias + 1) << U64(FRACTION):
        # Subnormal: count its units, of 2**(1 - bias - fraction). Scaling is exact.
        unit = from_bits(U64(BIAS + bias - 1 + fraction) << U64(FRACTION))
        return np.uint16(sign | U64(np.rint(from_bits(magnitude) * unit)))
    cut = U64(FRACTION - fraction)
    even = magnitude >> cut & U64(1)
    rounded = (magnitude + (U64(1) << cut - U64(1)) - U64(1) + even) >> cut
    return np.uint16(sign | min(rounded - (U64(BIAS - bias) << U64(fraction)), infinity))
