"""JSON bodies: one object, whose tensors are nested lists of numbers; its other keys are options.

The format is RFC 8259 plus the tokens NaN, Infinity and -Infinity, which may be strings in tensors,
and are written so. A tensor's text is read straight into an array (``tensor``); keys and options
are short, and read by the standard library (``members``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

import numpy as np
import orjson

from service.codecs.base import INTEGERS, LOGITS, Array, Arrays, Codec, Limits, Message, shown
from service.codecs.json import members, small, tensor
from service.codecs.json.tensor import DEFAULT, FLOATS, INTEGER, WIDEST, Kind, Reading
from service.codecs.naming import advice
from service.errors import DecodeError
from service.regimes import AT_ONCE_BODY_BYTES

# Most tensors and options of one message: some four times as many as exist.
MEMBER_LIMIT = 64

_DTYPE, _LABELS = "dtype", "labels"
_EXAMPLE = '{"logits": [[0.5, 1.5]], "labels": [1]}'
# The only float32 whose shortest text, read as float64, lies halfway to another float32.
_UNLUCKY, _UNLUCKY_TEXT = np.float32(7.0385307e-26), b"7.038531e-26"
# Strings for values that are not finite: bare, as Triton writes them, most parsers refuse them.
_WORDS = (b'"NaN"', b'"-Infinity"', b'"Infinity"')
# Numbers that are written with the GIL held: 16 Ki take some half a millisecond.
_PIECE = 1 << 14
_SMALL = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
_LONGEST = 26  # bytes of a number's text, its comma and brackets included: -1.7976931348623157e-308


class Json(Codec):
    """JSON. Other text than plain numbers is slower, and decoding it gives up in time."""

    name = "json"
    media_types = ("application/json",)
    typed = True
    growth = 4

    def decode(self, body: memoryview, names: frozenset[str], limits: Limits) -> Message:
        """Decode the tensors into new arrays, and every key that is not in ``names`` as an option.

        Floating tensors have the dtype that the option ``dtype`` names (float32 by default), which
        is not passed on. ``labels`` are int64 if all are written as integers; or, unless their
        shape is that of the logits, if all are integers, since JavaScript, PHP and R have only
        floats. A tensor that comes before ``dtype`` may be read twice, and such labels thrice; null
        is no tensor. Raises ``DecodeError``, which names the element, ``TooLarge`` and
        ``TakesLong``.
        """
        if len(body) <= small.LONGEST:
            plain = small.decode(body, names, limits.decoded_bytes)
            if plain is not None:
                return plain
        tensors: dict[str, Reading] = {}
        options: dict[str, Any] = {}
        absent: set[str] = set()
        left = members.VALUE_LIMIT
        at, more = members.open_body(body, _EXAMPLE)
        while more:
            key, at = members.key_at(body, at)
            if key in tensors or key in options or key in absent:
                raise DecodeError(f"{shown(key)} is there twice", where=shown(key)[1:-1])
            if len(tensors) + len(options) == MEMBER_LIMIT:
                raise DecodeError(
                    f"more than {MEMBER_LIMIT} tensors and options", where=f"byte {at}"
                )
            if key in names and (end := tensor.null_at(body, at)) is not None:
                absent.add(key)
                at = end
            elif key in names and key in INTEGERS:
                room = _room(tensors, limits)
                tensors[key] = tensor.integers(body, at, key, room, limits.until)
                at = tensors[key].at
            elif key in names:
                floats = [DEFAULT, WIDEST] if options.get(_DTYPE) is None else [_kind(options)]
                kinds = [INTEGER, *floats] if key == _LABELS else floats
                room = _room(tensors, limits)
                tensors[key] = tensor.first_fit(body, at, key, kinds, room, limits.until)
                at = tensors[key].at
            else:
                options[key], end = _option_at(body, at, left, key, names)
                left, at = max(left - (end - at), 1), end
            at, more = members.next_at(body, at)
        members.close_body(body, at)
        floating = _kind(options)
        options.pop(_DTYPE, None)
        for name, first in tensors.items():
            tensors[name] = _as_kind(body, name, first, floating.of(name), tensors, limits)
        return Message(
            {name: found.elements.reshape(found.shape) for name, found in tensors.items()},
            options,
        )

    def encode(self, arrays: Arrays) -> bytes:
        """Write one object of nested lists, and a newline for terminals.

        Values that are not finite are "NaN", "Infinity" or "-Infinity". Arrays named ``group.name``
        are members of the object ``group``. float32 and float64 are written with the fewest digits
        that give the same bits when read as float64 and rounded to the array's dtype.
        """
        if self.text_numbers(arrays) <= _PIECE:
            text = _small_object(arrays)
            if _UNLUCKY_TEXT not in text and b"null" not in text:
                return text
        groups: dict[str, list[bytes]] = {"": []}
        for name, array in arrays.items():
            group, _, own = name.rpartition(".")
            parts = groups.setdefault(group, [])
            parts += (b"," if parts else b"", _key(own), *pieces(np.asarray(array, order="C")))
        whole = [b"{", *groups.pop("")]
        for group, inside in groups.items():
            whole += [b",", _key(group), b"{", *inside, b"}"]
        whole.append(b"}\n")
        # A single join: above 1 MiB it copies without the GIL.
        return b"".join(whole)

    def at_once(self, body: memoryview) -> bool:
        """Return whether plain numbers of this length are read in less than a millisecond."""
        return len(body) <= AT_ONCE_BODY_BYTES

    def decoded_bytes(self, body: memoryview) -> int:
        """Return at most what the tensors take: a number behind every comma, read twice."""
        each = np.dtype(np.float32).itemsize + np.dtype(np.float64).itemsize
        return (tensor.commas(np.frombuffer(body, np.uint8)) + 1) * each

    def encoded_bytes(self, arrays: Arrays) -> int:
        """Return at most what the text takes, which is made in parts and then joined."""
        return 2 * _LONGEST * self.text_numbers(arrays)

    def text_numbers(self, arrays: Arrays) -> int:
        return sum([array.size or written_size(array) for array in arrays.values()])


def _as_kind(
    body: memoryview,
    name: str,
    first: Reading,
    kind: Kind,
    tensors: Mapping[str, Reading],
    limits: Limits,
) -> Reading:
    """Return the tensor that was read as ``first``, read again unless it has its dtype."""

    def again(kind: Kind) -> Reading:
        room = _room(tensors, limits) + first.elements.nbytes
        return tensor.checked(
            body, name, tensor.read(body, first.start, kind, room, first.at, limits.until)
        )

    if name in INTEGERS:
        return first
    if name == _LABELS:
        # Floats of the logits' shape are class probabilities.
        like_logits = any(tensors[other].shape == first.shape for other in LOGITS & tensors.keys())
        if first.kind is INTEGER and (first.elements.size or not like_logits):
            return first
        if not like_logits and (integers := tensor.whole(again(WIDEST))) is not None:
            return integers
    return first if first.kind == kind else again(kind)


def _option_at(
    body: memoryview, at: int, most: int, key: str, names: frozenset[str]
) -> tuple[Any, int]:
    try:
        return members.value_at(body, at, most, f"option {shown(key)}")
    except DecodeError as error:
        # A value too long for an option may be a tensor under another name.
        raise DecodeError(error.message + advice(key, names), where=error.where) from None


def _kind(options: Mapping[str, Any]) -> Kind:
    name = options.get(_DTYPE)
    if name is None:
        return DEFAULT
    if not isinstance(name, str) or name not in FLOATS:
        given = shown(name) if isinstance(name, str) else f"of type {type(name).__name__}"
        raise DecodeError(f"dtype {given} is not one of {', '.join(FLOATS)}", where=_DTYPE)
    return FLOATS[name]


def _room(tensors: Mapping[str, Reading], limits: Limits) -> int:
    return limits.decoded_bytes - sum(reading.elements.nbytes for reading in tensors.values())


def _key(name: str) -> bytes:
    return orjson.dumps(name) + b":"


def _small_object(arrays: Arrays) -> bytes:
    """Write few numbers in one call: an array at a time, five small ones took 7 us more."""
    groups: dict[str, dict[str, Any]] = {"": {}}
    for name, array in arrays.items():
        group, _, own = name.rpartition(".")
        groups.setdefault(group, {})[own] = array[()]
    whole = groups.pop("") | groups
    # The default is for what is not C-contiguous.
    return orjson.dumps(whole, np.ascontiguousarray, _SMALL)


def written_size(array: Array) -> int:
    """Return how many numbers, or lists without any, the text of ``array`` holds."""
    return array.size or math.prod(takewhile(bool, array.shape))


def pieces(array: Array) -> Iterator[bytes]:
    """Yield the text of ``array``, which is C-contiguous, at most ``_PIECE`` numbers at a time."""
    size = written_size(array)
    if size <= _PIECE:
        yield _text(array)
        return
    each = size // len(array)
    if each > _PIECE:
        for index, row in enumerate(array):
            yield b"," if index else b"["
            yield from pieces(row)
    else:
        step = _PIECE // each
        for start in range(0, len(array), step):
            yield b"," if start else b"["
            yield _text(array[start : start + step])[1:-1]
    yield b"]"


def _text(array: Array) -> bytes:
    text = orjson.dumps(array if array.ndim else array[()], option=orjson.OPT_SERIALIZE_NUMPY)
    if _UNLUCKY_TEXT in text and array.dtype == np.float32 and (np.abs(array) == _UNLUCKY).any():
        text = text.replace(_UNLUCKY_TEXT, b"7.0385307e-26")
    if b"null" in text:
        text = _with_words(text, array[~np.isfinite(array)])
    return text


def _with_words(text: bytes, values: Array) -> bytes:
    """Replace what orjson wrote as null in ``text`` by ``values``, none of them finite."""
    kinds = np.where(np.isnan(values), 0, np.where(values < 0, 1, 2))
    if (kinds == kinds[0]).all():
        return text.replace(b"null", _WORDS[kinds[0]])
    parts = [b""] * (2 * kinds.size + 1)
    parts[::2] = text.split(b"null")
    parts[1::2] = [_WORDS[kind] for kind in kinds.tolist()]
    return b"".join(parts)


CODEC = Json()
