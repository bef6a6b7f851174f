"""A tensor's JSON text to an array: which dtype, how much memory, and what an error says.

The scanner (``json_scan``) reports in numbers; here they get their names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from kernels import dtypes
from kernels.dtypes import DType
from service.codecs.base import MAX_RANK, WEIGHTS, DecodeError, TakesLong, TooLarge, shown
from service.codecs.json import element_types, scanner
from service.codecs.json.long_decimals import SCRATCH

_Array: TypeAlias = np.ndarray[Any, Any]
_TOKEN = re.compile(rb'"[^"]{0,60}+"?+|[^\s,\]}]{1,60}+|.?', re.DOTALL)
_NULL = re.compile(rb"null(?![\w.+-])")
_NO_INTEGER = re.compile(rb"[.eENI]")
_USUAL = 16  # bytes of an element's text: if they are fewer, memory is made for the rest of them
# Elements after which it is looked whether it takes long, or a quarter of those that are read: 0.2
# ms of plain ones, 5 of the worst.
_PIECE = 1 << 14
_EXACT = 2.0**53  # from here on float64 leaves integers out
_COUNTED = 1 << 17  # bytes looked at together: they stay in cache, and are worth NumPy's call


class Kind(NamedTuple):
    """What a tensor's elements become: the dtype's row, and what the scanner is told."""

    row: DType
    target: element_types.Target

    def of(self, name: str) -> Kind:
        """The same for the tensor ``name``: weights may be true and false, which are 1 and 0."""
        return self.boolean if name in WEIGHTS else self

    @property
    def boolean(self) -> Kind:
        """The same, but true and false are 1 and 0."""
        return self._replace(target=self.target._replace(boolean=1))


def _float(row: DType, kind: int, fraction: int, bias: int) -> Kind:
    # Halfway between the largest number and the next power of two; infinity for float64.
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
_NO_OUTPUTS = element_types.Outputs(
    *(
        np.empty(0, row.load)
        for row in (dtypes.FLOAT32, dtypes.FLOAT64, dtypes.BFLOAT16, dtypes.INTEGERS[0])
    )
)

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
# What is to be sent instead, where other writers of JSON are to blame.
_ADVICE = {
    "'null'": ": JSON.stringify of JavaScript and some other writers put null for each of these:"
    ' send them as strings, "-Infinity", "Infinity" and "NaN"',
    "'true'": ": send 1",
    "'false'": ": send 0",
}
_MISFITS = (scanner.NOT_INTEGER, scanner.BIG_INTEGER, scanner.OVERFLOW)


class Reading(NamedTuple):
    """What the scanner said of a tensor: see ``json_scan``."""

    kind: Kind
    start: int
    status: int
    at: int
    length: int
    number: int
    place: scanner.Place
    elements: _Array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.place.shape[: self.length].tolist())


def first_fit(
    body: memoryview,
    at: int,
    name: str,
    kinds: Iterable[Kind],
    room: int,
    until: float = math.inf,
) -> Reading:
    """The tensor at ``at`` as the first of ``kinds`` that every element fits; else ``checked``.

    ``room`` and ``until`` as ``read``.
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
    """Whether all numbers between are written as integers; other threads run between the pieces."""
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
    """Read the tensor at ``start`` into at most ``room`` bytes; it ends at ``end``, where known.

    Raises ``TakesLong`` if it is then later than ``until``, as ``time.perf_counter`` counts.
    """
    text = np.frombuffer(body, np.uint8)[:end]
    text.flags.writeable = False  # the one type that the scanner is compiled for
    most = max(room, 0) // kind.row.size
    elements = np.empty(min((text.size - start) // _USUAL + 1, most), kind.row.numpy)
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
            # A comma between any two elements.
            elements.resize(min(number + _commas(text[at:]) + 1, most), refcheck=False)
    del piece
    # The text was also that of other tensors: the memory behind the elements is given back.
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
    """The tensor at ``start`` as ``kind``; integers may be written as floats. Else ``checked``.

    ``room``, ``end`` and ``until`` as ``read``.
    """
    reading = read(body, start, kind, room, end, until)
    if reading.status != scanner.NOT_INTEGER:
        return checked(body, name, reading)
    floats = checked(body, name, read(body, start, WIDEST, room, end, until))
    integers = whole(floats)
    if integers is None:
        first = int(np.argmin(_are_integers(floats.elements)))
        where = name + "".join(f"[{i}]" for i in np.unravel_index(first, floats.shape))
        raise DecodeError(f"{where}: {floats.elements[first]} is not an integer", where=where)
    return integers


def whole(reading: Reading) -> Reading | None:
    """``reading``, of float64, with its elements as integers, in their place, if all are integers.

    Those from ``_EXACT`` on are none: the text may have been another integer's.
    """
    floats = reading.elements
    pieces = [slice(at, at + _PIECE) for at in range(0, floats.size, _PIECE)]
    if not all(_are_integers(floats[piece]).all() for piece in pieces):
        return None
    integers = floats.view(np.int64)
    for piece in pieces:
        integers[piece] = floats[piece].astype(np.int64)
    return reading._replace(kind=INTEGER, elements=integers)


def _are_integers(floats: _Array) -> _Array:
    return np.asarray((np.rint(floats) == floats) & (np.abs(floats) < _EXACT))


def _outputs(kind: Kind, elements: _Array) -> element_types.Outputs:
    outputs = list(_NO_OUTPUTS)
    outputs[kind.target.kind] = elements.view(outputs[kind.target.kind].dtype)
    return element_types.Outputs(*outputs)


def _commas(text: _Array) -> int:
    pieces = range(0, text.size, _COUNTED)
    return sum(int(np.count_nonzero(text[at : at + _COUNTED] == ord(","))) for at in pieces)


def checked(body: memoryview, name: str, reading: Reading) -> Reading:
    """``reading``, or the ``DecodeError`` that says what is wrong with the tensor."""
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
    """Where the null that starts at ``at`` ends; ``None`` if anything else is there."""
    null = _NULL.match(body, at)
    return null.end() if null else None


def token_at(body: memoryview, at: int) -> str:
    """What is at ``at``, to be shown in an error."""
    token = _TOKEN.match(body, at)
    return shown(token.group().decode("latin-1")) if token and at < len(body) else "the body's end"
