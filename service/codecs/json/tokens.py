"""Tokens of a tensor's JSON text, inside Numba kernels, never beyond the text's end."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.compiled import called, inlined
from service.codecs.json.bits import U64, trailing_zeros

_TENS = 10 ** np.arange(9, dtype=U64)
_NAN = np.frombuffer(b"NaN", np.uint8)
_INFINITY = np.frombuffer(b"Infinity", np.uint8)
_TRUE, _FALSE = np.frombuffer(b"true", np.uint8), np.frombuffer(b"false", np.uint8)
_SHORT = len("Inf")


@inlined
def peek(text: Any, at: int) -> Any:
    """Return the byte at ``at``, or -1 at the text's end."""
    return np.int64(text[U64(at)]) if at < text.size else -1


@inlined
def skip_space(text: Any, at: int) -> int:
    byte = peek(text, at)
    while byte == ord(" ") or byte == ord("\n") or byte == ord("\r") or byte == ord("\t"):
        at += 1
        byte = peek(text, at)
    return at


@inlined
def _eight(text: Any, at: int) -> Any:
    """Eight bytes as one little-endian word: LLVM makes one load of them."""
    chunk = U64(0)
    for i in range(8):
        chunk |= U64(text[U64(at + i)]) << U64(8 * i)
    return chunk


@inlined
def _digits(text: Any, at: int, w: Any) -> tuple[int, Any]:
    """Append the digits from ``at`` on to ``w``, modulo 2**64."""
    while at + 8 <= text.size:
        # Values of digits; for any other byte, the high nibble or the carry of the sum is not 0.
        chunk = _eight(text, at) ^ U64(0x3030303030303030)
        other = (chunk + U64(0x7676767676767676) | chunk) & U64(0x8080808080808080)
        count = trailing_zeros(other) >> 3
        if count == 0:
            return at, w
        # The first digit is the lowest byte: zeros are shifted in below, and pairs joined thrice.
        chunk <<= U64(64 - 8 * count)
        chunk = chunk * U64(10) + (chunk >> U64(8))
        chunk = (
            (chunk & U64(0x000000FF000000FF)) * U64(0x000F424000000064)
            + (chunk >> U64(16) & U64(0x000000FF000000FF)) * U64(0x0000271000000001)
        ) >> U64(32)
        w = w * _TENS[U64(count)] + chunk
        at += count
        if count < 8:
            return at, w
    digit = peek(text, at) - 48
    while 0 <= digit <= 9:
        w = w * U64(10) + U64(digit)
        at += 1
        digit = peek(text, at) - 48
    return at, w


@inlined
def number(text: Any, start: int) -> tuple[int, Any, int, int, bool]:
    """Read the unsigned number at ``start``.

    Returns its end (-1 if it is none), its digits as an integer modulo 2**64, the power of ten of
    the last one, how many there are, and whether it is an integer.
    """
    w = U64(0)
    at = start
    digit = peek(text, at) - 48
    while 0 <= digit <= 9:
        w = w * U64(10) + U64(digit)
        at += 1
        digit = peek(text, at) - 48
    digits = at - start
    if digits == 0 or (digits > 1 and text[U64(start)] == ord("0")):
        return -1, w, 0, 0, False
    integer = True
    q = 0
    if digit == ord(".") - 48:
        integer = False
        fraction = at + 1
        at, w = _digits(text, fraction, w)
        q = fraction - at
        digits -= q
        if q == 0:
            return -1, w, 0, 0, False
    if peek(text, at) | 32 == ord("e"):
        integer = False
        at, exponent = _exponent(text, at + 1)
        if at < 0:
            return -1, w, 0, 0, False
        q += exponent
    return at, w, q, digits, integer


@called
def _exponent(text: Any, at: int) -> tuple[int, int]:
    negative = peek(text, at) == ord("-")
    if negative or peek(text, at) == ord("+"):
        at += 1
    start = at
    exponent = 0
    digit = peek(text, at) - 48
    while 0 <= digit <= 9:
        # No text has enough digits to make up for a larger exponent.
        exponent = min(exponent * 10 + digit, 10**15)
        at += 1
        digit = peek(text, at) - 48
    return -1 if at == start else at, -exponent if negative else exponent


@called
def word(text: Any, at: int) -> tuple[int, float]:
    """Read NaN, Infinity or -Infinity: its end (-1 if it is none) and value.

    Bare, it is spelled just so; in a string, as any language prints it: of either case, with
    either sign, and Inf (R, Go, Python, C).
    """
    quoted = peek(text, at) == ord('"')
    at += quoted
    negative = peek(text, at) == ord("-")
    at += negative or (quoted and peek(text, at) == ord("+"))
    case = 32 if quoted else 0  # the bit that tells small letters from capitals
    nan = peek(text, at) | case == ord("N") | case and (quoted or not negative)
    expected = _NAN if nan else _INFINITY
    for i in range(expected.size):
        if quoted and i == _SHORT and peek(text, at) == ord('"'):
            break
        if peek(text, at) | case != np.int64(expected[i]) | case:
            return -1, 0.0
        at += 1
    if quoted and peek(text, at) != ord('"'):
        return -1, 0.0
    return at + quoted, np.nan if nan else -np.inf if negative else np.inf


@called
def truth(text: Any, at: int) -> tuple[int, float]:
    """Read true or false at ``at``: its end (-1 if it is none) and 1 or 0."""
    true = peek(text, at) == ord("t")
    expected = _TRUE if true else _FALSE
    for i in range(expected.size):
        if peek(text, at + i) != np.int64(expected[i]):
            return -1, 0.0
    return at + expected.size, 1.0 if true else 0.0
