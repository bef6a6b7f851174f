"""Fast path for short JSON bodies: a general parser, which takes 20 us less than the scanner.

``codec`` reads what this leaves, to the same bits, and reports errors: here there are none.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson

from service.codecs.base import INTEGERS, MAX_RANK, Message

# Bytes of a body that is read here. The general parser reads 0.1 GB/s.
LONGEST = 1 << 10
_MEMBERS = 32  # more are not plain
_LABELS, _DTYPE = "labels", "dtype"
# Escapes; words that NumPy makes numbers of; an integer that loses its sign.
_ODD = re.compile(rb"\\|true|false|null|-0(?!\.)")
# Numbers are rounded to float64, then to float32: the second time, what lies halfway may go the
# wrong way. The bits of float64 that float32 has not, of such a number; and where these are others.
_BELOW, _HALFWAY = np.uint64((1 << 29) - 1), np.uint64(1 << 28)
_UNSIGNED = np.uint64((1 << 63) - 1)
_SMALLEST, _LARGEST = np.array([2.0**-126, 2.0**127]).view(np.uint64)
_SPAN = _LARGEST - _SMALLEST
_EXACT = 2**53  # integers from here on may have become floats


def decode(body: memoryview, names: frozenset[str], most: int) -> Message | None:
    """Return the message of a plain ``body``, with tensors of at most ``most`` bytes, or ``None``.

    Plain are float32 tensors, int64 labels and ``INTEGERS``, options of numbers and texts, and no
    escapes.
    """
    raw = bytes(body)
    try:
        parsed = orjson.loads(raw)
        if type(parsed) is not dict or _ODD.search(raw):
            return None
        tensors = {name: _tensor(name, value) for name, value in parsed.items() if name in names}
    except (ValueError, TypeError, OverflowError):
        return None
    options, texts = {}, len(parsed)
    for name, value in parsed.items():
        if name not in names:
            count = _texts(value)
            if count is None:
                return None
            options[name], texts = value, texts + count
    # Strings elsewhere, or a key that is there twice, and of which but the last is known.
    if len(parsed) > _MEMBERS or raw.count(b'"') != 2 * texts:
        return None
    if _DTYPE in options or sum([array.nbytes for array in tensors.values()]) > most:
        return None
    if _LABELS in tensors and not tensors[_LABELS].size:
        return None
    return Message(tensors, options)


def _tensor(name: str, value: Any) -> np.ndarray[Any, Any]:
    if type(value) is not list:
        raise TypeError
    if name == _LABELS or name in INTEGERS:
        labels = np.array(value)
        if labels.dtype != np.int64 or labels.ndim > MAX_RANK:
            raise TypeError
        return labels
    wide = np.array(value, np.float64)
    bits = wide.view(np.uint64)
    odd = (bits & _BELOW) == _HALFWAY
    odd |= (bits & _UNSIGNED) - _SMALLEST >= _SPAN  # smaller ones wrap around
    if wide.ndim > MAX_RANK or (np.count_nonzero(odd) and (wide[odd] != 0).any()):
        raise ValueError
    return wide.astype(np.float32)


def _texts(option: Any) -> int | None:
    """Count the texts that an option is or lists; ``None`` for anything less plain."""
    if type(option) is str:
        return 1
    if type(option) is list and all(type(item) is str for item in option):
        return len(option)
    plain = type(option) in (int, float) and abs(option) < _EXACT
    return 0 if plain else None
