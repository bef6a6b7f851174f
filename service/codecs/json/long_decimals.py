"""Decimal numbers of more than 19 digits to the nearest float64, inside Numba kernels.

Digits behind the 19th matter only if those 19 as an integer, and the next larger integer, round
differently. Then all digits are compared with the midpoint between the two results as integers of
enough bits: a longer number costs more, and each is decided.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.compiled import called
from service.codecs.json.bits import U64, product, to_bits
from service.codecs.json.decimals import BIAS, FRACTION, MOST_DIGITS, to_float

# Two integers in 64-bit limbs: 800 digits are 2658 bits, and 54 bits times 5**1123 are 2662. (Below
# 10**-342, 19 digits make 0, whatever comes behind them: that leaves 342 + 800 - 19.)
SCRATCH = (2, 48)

# No midpoint of two float64s has more than 767 significant digits.
_DECISIVE_DIGITS = 800
# Digits, and powers of five, that fit a limb.
_DIGITS = 19
_FIVES = np.array([5**exponent for exponent in range(28)], U64)


@called
def long_to_float(text: Any, start: int, end: int, q: int, scratch: Any) -> float:
    """Round text[start:end], an unsigned number; ``q`` is the power of ten of its last digit.

    ``scratch`` is a uint64 array of the shape ``SCRATCH``.
    """
    while start < end and (text[start] == ord("0") or text[start] == ord(".")):
        start += 1
    w, digits = U64(0), 0
    for i in range(start, end):
        if text[i] == ord("e") or text[i] == ord("E"):
            end = i
            break
        if text[i] != ord("."):
            w = w * U64(10) + U64(text[i] - 48) if digits < MOST_DIGITS else w
            digits += 1
    rest = max(digits - MOST_DIGITS, 0)
    below = to_float(w, q + rest)
    above = to_float(w + U64(rest > 0), q + rest)
    if below == above:
        return below
    return above if _rounds_up(text, start, end, q, digits, below, scratch) else below


@called
def _rounds_up(
    text: Any, start: int, end: int, q: int, digits: int, below: float, scratch: Any
) -> bool:
    """Return whether text[start:end] * 10**q rounds to the float64 after ``below``.

    The number and the midpoint are scaled to integers: arrays of 64-bit limbs, the lowest first.
    """
    scratch[:] = U64(0)
    number, middle = scratch[0], scratch[1]
    kept = min(digits, _DECISIVE_DIGITS)
    q += digits - kept
    used, chunk, scale, more = 0, U64(0), U64(1), False
    for i in range(start, end):
        if text[i] == ord("."):
            continue
        if kept == 0:
            more |= text[i] != ord("0")
            continue
        chunk = chunk * U64(10) + U64(text[i] - 48)
        scale *= U64(10)
        kept -= 1
        if scale == U64(10**_DIGITS) or kept == 0:
            used = _multiply(number, used, scale, chunk)
            chunk, scale = U64(0), U64(1)
    bits = to_bits(below)
    field: Any = np.int64(bits >> U64(FRACTION))
    fraction = bits & U64((1 << FRACTION) - 1)
    if field > 0:
        fraction |= U64(1 << FRACTION)
    # The midpoint is (2 * fraction + 1) * 2**power.
    power = max(field, 1) - (BIAS + FRACTION + 1)
    middle[0] = fraction << U64(1) | U64(1)
    used = _multiply_five(number, used, q)
    _shift(number, used, q - power)
    used = _multiply_five(middle, 1, -q)
    _shift(middle, used, power - q)
    for i in range(number.size - 1, -1, -1):
        if number[i] != middle[i]:
            return bool(number[i] > middle[i])
    return bool(more or fraction & U64(1) == U64(1))


@called
def _multiply_five(limbs: Any, used: int, exponent: int) -> int:
    """Multiply by 5**exponent, or by nothing if the exponent is negative."""
    while exponent > 0:
        step = min(exponent, _FIVES.size - 1)
        used = _multiply(limbs, used, _FIVES[step], U64(0))
        exponent -= step
    return used


@called
def _shift(limbs: Any, used: int, exponent: int) -> None:
    """Multiply by 2**exponent, or by nothing if the exponent is negative."""
    if exponent > 0:
        used = _multiply(limbs, used, U64(1) << U64(exponent & 63), U64(0))
        whole = exponent >> 6
        for i in range(used - 1, -1, -1):
            limbs[i + whole] = limbs[i]
        limbs[:whole] = U64(0)


@called
def _multiply(limbs: Any, used: int, factor: Any, carry: Any) -> int:
    """Set ``limbs`` to limbs * factor + carry; return how many limbs are used then."""
    for i in range(used):
        high, low = product(limbs[i], factor)
        low += carry
        limbs[i] = low
        carry = high + U64(low < carry)
    if carry > U64(0):
        limbs[used] = carry
        used += 1
    return used
