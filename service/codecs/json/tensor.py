"""Conversion of a tensor's JSON text to an array: dtype, memory, and sentences of errors.

The compiled ``scanner`` reports errors as numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from time import perf_counter
from typing import NamedTuple

import numpy as np

from kernels import dtypes
from kernels.dtypes import DType
from service.codecs.base import BOOLEAN, MAX_RANK, Array, TakesLong, shown
from service.codecs.json import element_types, scanner
from service.codecs.json.long_decimals import SCRATCH
from service.errors import DecodeError, TooLarge

_TOKEN = re.compile(rb'"[^"]{0,60}+"?+|[^\s,\]}]{1,60}+|.?', re.DOTALL)
_NULL = re.compile(rb"null(?![\w.+-])")
_NO_INTEGER = re.compile(rb"[.eENI]")
_USUAL = 16  # bytes of an element's text: where they are fewer, the output grows once
_FEW = 64  # elements that the output of a short text has room for, without growing
# Elements, or else a quarter of those already read, between two looks at the clock: 0.2 ms of plain
# ones, 5 ms of the worst.
_PIECE = 1 << 14
_EXACT = 2.0**53  # from here on float64 leaves integers out
_COUNTED = 1 << 17  # bytes of text that are looked at together: they stay in cache


class Kind(NamedTuple):
    """Dtype of a tensor's elements: its row of the table, and the scanner's target."""

    row: DType
    target: element_types.Target

    def of(self, name: str) -> Kind:
        """Return the kind for the tensor ``name``: true and false of ``BOOLEAN`` are 1 and 0."""
        return self.boolean if name in BOOLEAN else self

    @property
    def boolean(self) -> Kind:
        """Kind that reads true and false as 1 and 0."""
        return self._replace(target=self.target._replace(boolean=1))


def _float(row: DType, kind: int, fraction: int, bias: int) -> Kind:
    # Halfway between the largest number and the next power of two; infinite for float64.
    limit = (2 - 2.0 ** -(fraction + 1)) * 2.0**bias
    return Kind(row, element_types.Target(kind, fraction, bias, limit))


FLOATS = {
    kind.row.name: kind
    for kind in (
        _float(dtypes.FLOAT32, element_types.FLOAT32, 23, 127),
        _float(dtypes.FLOAT64, element_types.FLOAT64, 52, 1023),
        _float(dtypes.FLOAT16, element_types.NARROW, 10, 15),
        _float(dtypes.BFLOAT16, element_types.NARROW, 7, 127),
    )
}
DEFAULT = FLOATS[dtypes.FLOAT32.name]
WIDEST = FLOATS[dtypes.FLOAT64.name]
INTEGER = Kind(dtypes.INTEGERS[0], element_types.Target(element_types.INT64, 0, 0, math.inf))
_OF_OUTPUTS = (dtypes.FLOAT32, dtypes.FLOAT64, dtypes.BFLOAT16, dtypes.INTEGERS[0])
_NO_OUTPUTS = element_types.Outputs(*(np.empty(0, row.load) for row in _OF_OUTPUTS))

_PROBLEMS = {
    scanner.STRAY: "{token} follows, where a comma or a closing bracket belongs",
    scanner.NO_ELEMENT: "{token} is neither a JSON number nor NaN, Infinity or -Infinity{advice}",
    scanner.OVERFLOW: "{token} is more than {dtype} holds; send Infinity, or another dtype",
    scanner.NOT_INTEGER: "{token} is not an integer",
    scanner.BIG_INTEGER: "{token} is more than int64 holds",
    scanner.RAGGED: "row has {length} elements, expected {expected} like {like}",
    scanner.NO_ROW: "{token} where a row is expected, like {like}",
    scanner.ROW: "a row where a number is expected",
    scanner.DEEP: f"more than {MAX_RANK} brackets deep",
}
# Advice for tokens that other writers of JSON produce.
_ADVICE = {
    "'null'": ": JSON.stringify of JavaScript and some other writers put null for each of these:"
    ' send them as strings, "-Infinity", "Infinity" and "NaN"',
    "'true'": ": send 1",
    "'false'": ": send 0",
}
_MISFITS = (scanner.NOT_INTEGER, scanner.BIG_INTEGER, scanner.OVERFLOW)


class Reading(NamedTuple):
    """Result of the scanner for a tensor, see ``scanner``."""

    kind: Kind
    start: int
    status: int
    at: int
    length: int
    number: int
    place: scanner.Place
    elements: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.place.shape[: self.length].tolist())


def first_fit(
    body: memoryview, at: int, name: str, kinds: Iterable[Kind], room: int, until: float = math.inf
) -> Reading:
    """Read the tensor at ``at`` as the first of ``kinds`` that every element fits.

    ``room`` and ``until`` are those of ``read``. Raises as ``read`` and ``checked``.
    """
    readings: list[Reading] = []
    for kind in (kind.of(name) for kind in kinds):
        readings.append(read(body, at, kind, room, until=until))
        if readings[-1].status not in _MISFITS:
            break
    first, last = readings[0], readings[-1]
    # Integers do not become floats for being too large.
    if first.status == scanner.BIG_INTEGER and last.status == scanner.DONE:
        last = first if _integers(body, at, last.at) else last
    return checked(body, name, last)


def _integers(body: memoryview, start: int, end: int) -> bool:
    """Return whether all numbers of ``body[start:end]`` are written as integers.

    Other threads run between the pieces.
    """
    pieces = range(start, end, _COUNTED)
    return not any(_NO_INTEGER.search(body, at, min(at + _COUNTED, end)) for at in pieces)


def read(
    body: memoryview,
    start: int,
    kind: Kind,
    room: int,
    end: int | None = None,
    until: float = math.inf,
) -> Reading:
    """Read the tensor at ``start`` into at most ``room`` bytes; ``end`` is its end, where known.

    Raises ``TakesLong`` if it is then later than ``until``, as ``time.perf_counter`` counts.
    """
    text = np.frombuffer(body, np.uint8)[:end]
    text.flags.writeable = False  # the only type that the scanner is compiled for
    most = max(room, 0) // kind.row.size
    usual = max((text.size - start) // _USUAL + 1, _FEW)
    elements = np.empty(min(usual, most), kind.row.numpy)
    place = scanner.Place(np.zeros(MAX_RANK, np.int64), np.zeros(MAX_RANK, np.int64))
    scratch = np.empty(SCRATCH, np.uint64)
    at, length, number = start, 0, 0
    while True:
        piece = elements if math.isinf(until) else elements[: number + max(_PIECE, number // 4)]
        status, at, length, number = scanner.compiled()(
            text, at, kind.target, _outputs(kind, piece), place, scratch, length, number
        )
        if status != scanner.FULL or number == most:
            break
        if perf_counter() > until:
            raise TakesLong
        if number == elements.size:
            # At least one comma stands between any two elements.
            elements.resize(min(number + commas(text[at:]) + 1, most), refcheck=False)
    del piece
    # The text may hold other tensors too: the rest of the memory is given back.
    elements.resize(number, refcheck=False)
    return Reading(kind, start, status, at, length, number, place, elements)


def elements(
    body: memoryview,
    start: int,
    name: str,
    kind: Kind,
    room: int,
    end: int | None = None,
    until: float = math.inf,
) -> Reading:
    """Read the tensor at ``start`` as ``kind``; integers may be written as floats.

    ``room``, ``end`` and ``until`` are those of ``read``. Raises as ``read`` and ``checked``.
    """
    reading = read(body, start, kind, room, end, until)
    if reading.status != scanner.NOT_INTEGER:
        return checked(body, name, reading)
    return _whole(checked(body, name, read(body, start, WIDEST, room, end, until)), name)


def integers(body: memoryview, start: int, name: str, room: int, until: float) -> Reading:
    """Read the tensor of ``INTEGERS`` at ``start``: int64, as ``elements``."""
    if name not in BOOLEAN:
        return elements(body, start, name, INTEGER, room, until=until)
    # The scanner reads true and false as floats alone.
    kind = WIDEST.boolean
    return _whole(checked(body, name, read(body, start, kind, room, until=until)), name)


def _whole(floats: Reading, name: str) -> Reading:
    found = whole(floats)
    if found is None:
        first = int(np.argmin(_are_integers(floats.elements)))
        where = name + "".join(f"[{i}]" for i in np.unravel_index(first, floats.shape))
        raise DecodeError(f"{where}: {floats.elements[first]} is not an integer", where=where)
    return found


def whole(reading: Reading) -> Reading | None:
    """Convert ``reading``, of float64, to int64 in place; ``None`` unless all are integers.

    Those from ``_EXACT`` on count as none: the text may have been another integer's.
    """
    floats = reading.elements
    pieces = [slice(at, at + _PIECE) for at in range(0, floats.size, _PIECE)]
    if not all(_are_integers(floats[piece]).all() for piece in pieces):
        return None
    integers = floats.view(np.int64)
    for piece in pieces:
        integers[piece] = floats[piece].astype(np.int64)
    return reading._replace(kind=INTEGER, elements=integers)


def _are_integers(floats: Array) -> Array:
    return np.asarray((np.rint(floats) == floats) & (np.abs(floats) < _EXACT))


def _outputs(kind: Kind, elements: Array) -> element_types.Outputs:
    outputs = list(_NO_OUTPUTS)
    outputs[kind.target.kind] = elements.view(outputs[kind.target.kind].dtype)
    return element_types.Outputs(*outputs)


def commas(text: Array) -> int:
    """Return how many commas ``text``, of uint8, has."""
    pieces = range(0, text.size, _COUNTED)
    return sum(int(np.count_nonzero(text[at : at + _COUNTED] == ord(","))) for at in pieces)


def checked(body: memoryview, name: str, reading: Reading) -> Reading:
    """Return ``reading``; raises ``DecodeError`` or ``TooLarge`` if the scanner found an error."""
    if reading.status == scanner.DONE:
        return reading
    if reading.status == scanner.FULL:
        room = reading.number * reading.kind.row.size
        raise TooLarge(
            f"{name}: takes more than the {room:,} bytes that the limit leaves to it", where=name
        )
    index = reading.place.index[: reading.length].tolist()
    where = name + "".join(f"[{i}]" for i in index)
    token = token_at(body, reading.at)
    problem = _PROBLEMS[reading.status].format(
        token=token,
        advice=_ADVICE.get(token, ""),
        dtype=reading.kind.row.name,
        length=reading.number,
        expected=reading.place.shape[reading.length % MAX_RANK],
        like=name + "[0]" * len(index),
    )
    raise DecodeError(f"{where}: {problem}", where=where)


def null_at(body: memoryview, at: int) -> int | None:
    """Return the end of the null at ``at``; ``None`` if anything else is there."""
    null = _NULL.match(body, at)
    return null.end() if null else None


def token_at(body: memoryview, at: int) -> str:
    """Return the token at ``at``, quoted for an error."""
    token = _TOKEN.match(body, at)
    return shown(token.group().decode("latin-1")) if token and at < len(body) else "the body's end"
