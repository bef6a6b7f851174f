"""Fast path for runs of plain numbers, which are most of any large tensor's text.

A plain number has a whole and a fractional part, no exponent, and a comma or a closing bracket
right behind it: -3.3528661727905273. One vector of text finds its end, another reads sixteen of its
digits, which bound it to within 2**-49. If both bounds round to the same element, so does the
number. Otherwise, and for anything not plain, ``scanner`` decides: no error comes from here.

It reads 2 GB of text a second (Xeon, 3 GHz): 10 ns for a float32 written as float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.compiled import inlined
from service.codecs.json.bits import U64, trailing_zeros
from service.codecs.json.decimals import narrow
from service.codecs.json.digits import DIGITS, WINDOW, leading_digits, no_digits
from service.codecs.json.element_types import FLOAT32, Outputs, Target

# Value of the last digit read: by the number of digits before the point, and the sign.
_UNITS = np.array([1.0, -1.0]) * 10.0 ** (np.arange(WINDOW)[:, np.newaxis] - DIGITS)
# Digits, unit, their product and the sum with what follows are each rounded, by up to 2**-53.
_INWARDS, _OUTWARDS = 1 - 2.0**-49, 1 + 2.0**-49


@inlined
def _plain(text: Any, at: int) -> tuple[int, float, float]:
    """Read the number at ``at``: its end (-1 if it is not plain) and bounds, nearer to 0 first.

    ``WINDOW`` bytes must follow ``at``.
    """
    negative = text[U64(at)] == ord("-")
    others = no_digits(text, at) ^ U64(negative)
    point = trailing_zeros(others)
    length = trailing_zeros(others & (others - U64(1)))
    whole = point - negative
    count = length - negative - 1
    if length >= WINDOW or whole < 1 or count <= whole:
        return -1, 0.0, 0.0
    start, end = at + negative, at + length
    if text[U64(at + point)] != ord(".") or (whole > 1 and text[U64(start)] == ord("0")):
        return -1, 0.0, 0.0
    if text[U64(end)] != ord(",") and text[U64(end)] != ord("]"):
        return -1, 0.0, 0.0
    unit = _UNITS[U64(whole), U64(negative)]
    value = np.float64(leading_digits(text, start, whole, count)) * unit
    rest = unit if count > DIGITS else 0.0
    return end, value * _INWARDS, (value + rest) * _OUTWARDS


@inlined
def read_plain(
    text: Any, at: int, target: Target, outputs: Outputs, count: int, most: int
) -> tuple[int, int]:
    """Read plain numbers from ``at`` on into the output's places from ``count`` up to ``most``.

    Returns the end of the last one, and the place after it; ``count`` if there is none.
    """
    end, gap = at, 1
    while count < most and at + WINDOW < text.size:
        stop, inner, outer = _plain(text, at)
        if stop < 0 or abs(outer) >= target.limit:
            break
        if target.kind == FLOAT32:
            element = np.float32(inner)
            if element != np.float32(outer):
                break
            outputs.float32[U64(count)] = element
        else:
            bits = narrow(inner, target.fraction, target.bias)
            if bits != narrow(outer, target.fraction, target.bias):
                break
            outputs.narrow[U64(count)] = bits
        count += 1
        end = stop
        if text[U64(end)] == ord("]"):
            break
        # Guessing the gap saves 8 ns a number: the next one need not wait for a lookup.
        if (text[U64(end + 1)] == ord(" ")) != gap - 1:
            if gap == 2:
                break
            gap = 2
        at = end + gap
    return end, count
