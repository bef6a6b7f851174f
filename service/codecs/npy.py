"""Format .npy: a magic string, a version, a header that is a Python dict literal, the elements.

The format: numpy/lib/format.py (versions 1.0, 2.0 and 3.0). The header is matched by a regular
expression: nothing is evaluated, and nothing is allocated because of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from kernels import dtypes
from kernels.dtypes import DType
from service.codecs.base import (
    MAX_RANK,
    NATURAL,
    Limits,
    check_size,
    dtype_named,
    shown,
    tensor_view,
)
from service.errors import DecodeError

# Bytes of a header: all that version 1.0 allows. NumPy writes about 128.
HEADER_LIMIT = 1 << 16

# Bytes that NumPy pads the header to a multiple of.
ALIGNMENT = 64

_MAGIC = b"\x93NUMPY"
_LENGTH_AT = len(_MAGIC) + 2
# Magic, version and the longer of the two length fields.
PREFIX = _LENGTH_AT + 4
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}

# Possessive quantifiers never backtrack, whatever the header.
_ITEM = re.compile(
    r"""\ *+ (?P<quote>['"]) (?P<key>[a-z_]++) (?P=quote) \ *+ : \ *+
    (?: (?P<mark>['"]) (?P<text>[^'"\\\n]*+) (?P=mark)
      | (?P<bool>True|False)
      | \( (?P<shape>[0-9,\ ]*+) \)
      | (?P<compound>[\[(])
    ) \ *+ (?P<end>,?+) \ *+""",
    re.VERBOSE,
)
# A dtype in one word, which NumPy looks up and does not parse.
_WORD = re.compile(r"[<>=|]?[A-Za-z?][A-Za-z0-9_]{0,15}")
_SUPPORTED = f"the dtypes are {', '.join(dtypes.BY_NAME)}"
_VALUE = {"descr": "text", "fortran_order": "bool", "shape": "shape"}


def decode(body: memoryview, limits: Limits, *, where: str, name: str = "") -> np.ndarray[Any, Any]:
    """View the array of a whole .npy file, the tensor ``name``, in ``body``.

    ``where`` names the file in errors. Fortran order gives a Fortran-ordered view. Raises
    ``DecodeError`` unless it is exactly one array of a dtype of ``kernels.dtypes``.
    """
    layout = _layout(body, len(body), where, name)
    order: Literal["C", "F"] = "F" if layout.fortran else "C"
    data = body[layout.start :]
    return tensor_view(data, layout.row, layout.shape, limits, where=where, order=order)


def check(begun: bytes, size: int, limits: Limits, where: str, name: str = "") -> None:
    """Raise as ``decode`` for the header in ``begun``, the first bytes of a file of ``size`` bytes.

    A header that ``begun`` does not hold as a whole passes.
    """
    start = data_start(begun[:PREFIX])
    if start is None or start <= len(begun):
        layout = _layout(memoryview(begun), size, where, name)
        check_size(size - layout.start, layout.row, layout.shape, limits, where=where)


class _Layout(NamedTuple):
    """Offset of a file's elements, and their dtype, shape and order."""

    start: int
    row: DType
    shape: list[int]
    fortran: bool


def _layout(body: memoryview, size: int, where: str, name: str) -> _Layout:
    """Read the header that ``body``, of a file of ``size`` bytes, begins with."""
    start = data_start(bytes(body[:PREFIX]))
    if start is None or start > size:
        raise DecodeError(
            f"{where} must start with the magic string, version (1.0, 2.0 or 3.0) and header of a "
            f".npy file, the header being at most {HEADER_LIMIT:,} bytes long",
            where=where,
        )
    length_bytes = _LENGTH_BYTES[body[6], body[7]]
    header = _items(bytes(body[_LENGTH_AT + length_bytes : start]), where)
    row = _row(header["descr"], where, name)
    return _Layout(start, row, _shape(header["shape"], where), header["fortran_order"] == "True")


def data_start(prefix: bytes) -> int | None:
    """Return where the elements start, as ``PREFIX`` bytes say; ``None`` if these do not."""
    if len(prefix) < _LENGTH_AT or not prefix.startswith(_MAGIC):
        return None
    length_bytes = _LENGTH_BYTES.get((prefix[6], prefix[7]), 0)
    header_at = _LENGTH_AT + length_bytes
    if not length_bytes or len(prefix) < header_at:
        return None
    length = int.from_bytes(prefix[_LENGTH_AT:header_at], "little")
    return header_at + length if length <= HEADER_LIMIT else None


def _items(raw: bytes, where: str) -> dict[str, str]:
    """Return the header's values as text, by key: three keys, each once, each of its kind."""
    found: dict[str, str] = {}
    # A byte above 127 becomes a character that the expression does not match.
    text = raw.decode("latin-1").rstrip(" \n").lstrip(" ")
    at, more = 1, True
    while more and text.startswith("{") and (match := _ITEM.match(text, at)):
        key = match["key"]
        if key in found or key not in _VALUE:
            break
        if key == "descr" and match["compound"]:
            raise DecodeError(f"{where}: structured dtypes are not read: {_SUPPORTED}", where=where)
        value = match[_VALUE[key]]
        if value is None:
            break
        found[key] = value
        at, more = match.end(), bool(match["end"])
    if found.keys() != _VALUE.keys() or text[at:] != "}":
        raise DecodeError(
            f"{where}: the header must be a dict of exactly descr (a string), fortran_order (True "
            "or False) and shape (a tuple of integers), as numpy.save writes it",
            where=where,
        )
    return found


def _row(descr: str, where: str, name: str) -> DType:
    spelled = _spelled(descr)
    row = dtype_named(spelled, dtypes.BY_NPY, dtypes.BOOL.npy[0], name)
    if row is not None:
        return row
    if "<" + spelled[1:] in dtypes.BY_NPY and spelled.startswith(">"):
        advice = "big-endian arrays are not read: save array.astype(array.dtype.newbyteorder('<'))"
    elif spelled.endswith("O"):
        advice = "arrays of objects are pickles, which are never read: convert it to numbers"
    else:
        advice = _SUPPORTED
    raise DecodeError(f"{where}: dtype {shown(descr)}: {advice}", where=where)


def _spelled(descr: str) -> str:
    """Return ``descr`` as numpy.save spells it: numpy.load takes "=f4", "f", "float32" as "<f4".

    Unchanged if it is no single dtype's name.
    """
    # NumPy deprecated "a" (bytes), and warns of it.
    if not _WORD.fullmatch(descr) or descr.lstrip("<>=|").startswith("a"):
        return descr
    try:
        return np.dtype(descr).str
    except (TypeError, ValueError, OverflowError):
        return descr


def _shape(inside: str, where: str) -> list[int]:
    """Return the extents in a tuple's inside, "2, 3" or "2," or ""; "2" alone is no tuple."""
    dimensions = inside.count(",") + (not inside.rstrip(" ").endswith(","))
    if dimensions > MAX_RANK:
        raise DecodeError(
            f"{where}: {dimensions} dimensions, but at most {MAX_RANK} are read", where=where
        )
    extents = [extent.strip(" ") for extent in inside.split(",")]
    if not extents[-1]:
        extents.pop()
    if not all(map(NATURAL.fullmatch, extents)) or (extents and "," not in inside):
        raise DecodeError(
            f"{where}: shape ({shown(inside)[1:-1]}) is not a tuple of integers from 0 to "
            "10**19 - 1",
            where=where,
        )
    return [int(extent) for extent in extents]


def header(row: DType, shape: Sequence[int]) -> bytes:
    """Write the bytes before a C-ordered array's elements, a multiple of 64."""
    text = f"{{'descr': {row.npy[0]!r}, 'fortran_order': False, 'shape': {tuple(shape)!r}, }}"
    padding = -(_LENGTH_AT + 2 + len(text) + 1) % ALIGNMENT
    text += " " * padding + "\n"
    return _MAGIC + b"\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
