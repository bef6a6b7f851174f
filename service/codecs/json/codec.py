"""JSON bodies: one object, whose tensors are nested lists of numbers; its other keys are options.

The format: RFC 8259, and the tokens NaN, Infinity and -Infinity besides; in tensors they may be
strings, which is how they are written. A tensor's text goes straight into an array
(``json_tensor``); keys and options are short, and go through the standard library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from itertools import takewhile
from typing import Any, TypeAlias

import numpy as np
import orjson

from service.codecs.base import LOGITS, Codec, DecodeError, Limits, Message, shown
from service.codecs.json import small as small_json
from service.codecs.json.members import (
    VALUE_LIMIT,
    close_body,
    key_at,
    next_at,
    open_body,
    value_at,
)
from service.codecs.json.tensor import (
    DEFAULT,
    FLOATS,
    INTEGER,
    WIDEST,
    Kind,
    Reading,
    checked,
    first_fit,
    null_at,
    read,
    whole,
)
from service.codecs.naming import advice

# Tensors and options of one message: some four times what there is.
MEMBER_LIMIT = 64

_DTYPE, _LABELS = "dtype", "labels"
_EXAMPLE = '{"logits": [[0.5, 1.5]], "labels": [1]}'
# The only float32 whose shortest text, read as float64, lies halfway to another float32.
_UNLUCKY, _UNLUCKY_TEXT = np.float32(7.0385307e-26), b"7.038531e-26"
# What is not finite, as strings: bare, as Triton writes it, it is no JSON to most parsers.
_WORDS = (b'"NaN"', b'"-Infinity"', b'"Infinity"')
# Numbers that are written with the GIL held: 16 Ki take some half a millisecond.
_PIECE = 1 << 14
_SHORT = 3 << 19  # bytes of plain numbers that are read in less than a millisecond
_COUNTED = 1 << 17  # bytes whose commas are counted together, in cache
_LONGEST = 26  # bytes of a number's text, its comma and brackets included: -1.7976931348623157e-308
_Array: TypeAlias = np.ndarray[Any, Any]


def decode(body: memoryview, names: frozenset[str], limits: Limits) -> Message:
    """The tensors as new arrays, and every key that is not in ``names`` as an option.

    Floating tensors are of the type that the option ``dtype`` names, which is consumed: float32 by
    default. ``labels`` are int64 if every one is written as an integer; or, unless their shape is
    that of the logits, if every one is an integer: JavaScript, PHP and R have only floats. A tensor
    that comes before ``dtype`` may have to be read twice, and such labels thrice; one that is null
    is not there. Raises ``DecodeError``, which names the element, and ``TooLarge``.
    """
    if len(body) <= small_json.LONGEST:
        plain = small_json.decode(body, names, limits.decoded_bytes)
        if plain is not None:
            return plain
    tensors: dict[str, Reading] = {}
    options: dict[str, Any] = {}
    absent: set[str] = set()
    left = VALUE_LIMIT
    at, more = open_body(body, _EXAMPLE)
    while more:
        key, at = key_at(body, at)
        if key in tensors or key in options or key in absent:
            raise DecodeError(f"{shown(key)} is there twice", where=shown(key)[1:-1])
        if len(tensors) + len(options) == MEMBER_LIMIT:
            raise DecodeError(f"more than {MEMBER_LIMIT} tensors and options", where=f"byte {at}")
        if key in names and (end := null_at(body, at)) is not None:
            absent.add(key)
            at = end
        elif key in names:
            floats = [DEFAULT, WIDEST] if options.get(_DTYPE) is None else [_kind(options)]
            kinds = [INTEGER, *floats] if key == _LABELS else floats
            room = _room(tensors, limits)
            tensors[key] = first_fit(body, at, key, kinds, room, limits.until)
            at = tensors[key].at
        else:
            options[key], end = _option_at(body, at, left, key, names)
            left, at = max(left - (end - at), 1), end
        at, more = next_at(body, at)
    close_body(body, at)
    floating = _kind(options)
    options.pop(_DTYPE, None)
    for name, first in tensors.items():
        room = _room(tensors, limits) + first.elements.nbytes
        again = partial(read, body, first.start, room=room, end=first.at, until=limits.until)
        if name == _LABELS:
            like_logits = _like_logits(first, tensors)
            if first.kind is INTEGER and (first.elements.size or not like_logits):
                continue
            if not like_logits:
                integers = whole(checked(body, name, again(kind=WIDEST)))
                if integers is not None:
                    tensors[name] = integers
                    continue
        kind = floating.of(name)
        if first.kind != kind:
            tensors[name] = checked(body, name, again(kind=kind))
    arrays = {name: tensor.elements.reshape(tensor.shape) for name, tensor in tensors.items()}
    return Message(arrays, options)


def _option_at(
    body: memoryview, at: int, most: int, key: str, names: frozenset[str]
) -> tuple[Any, int]:
    try:
        return value_at(body, at, most, f"option {shown(key)}")
    except DecodeError as error:
        # What is too long for an option may be a tensor under a name that is not ours.
        raise DecodeError(error.message + advice(key, names), where=error.where) from None


def _like_logits(labels: Reading, tensors: Mapping[str, Reading]) -> bool:
    """Whether the labels' shape makes class probabilities of them, if they are floats."""
    return any(tensors[name].shape == labels.shape for name in LOGITS & tensors.keys())


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


def at_once(body: memoryview) -> bool:
    """Whether plain text of this length is soon read: 2 GB are in a second. Other text gives up."""
    return len(body) <= _SHORT


def decoded_bytes(body: memoryview) -> int:
    """At most what the tensors take: any comma may be followed by a number, read twice."""
    text = np.frombuffer(body, np.uint8)
    commas = sum(
        int(np.count_nonzero(text[start : start + _COUNTED] == ord(",")))
        for start in range(0, text.size, _COUNTED)
    )
    return (commas + 1) * (np.dtype(np.float32).itemsize + np.dtype(np.float64).itemsize)


def encoded_bytes(arrays: Mapping[str, _Array]) -> int:
    """At most what the text takes, which is made in parts and then joined."""
    return 2 * sum(written_size(array) * _LONGEST for array in arrays.values())


def encode(arrays: Mapping[str, _Array]) -> bytes:
    """One object of nested lists and a newline, after which a terminal's prompt has its own line.

    What is not finite is "NaN", "Infinity" or "-Infinity". float32 and float64 are written with
    the fewest digits that give the same bits when read as float64 and rounded to the array's type.
    """
    # One join: of what is larger than 1 MiB it copies the bytes without the GIL.
    return b"".join([b"{", *members(arrays), b"}\n"])


def members(arrays: Mapping[str, _Array]) -> Iterator[bytes]:
    """The text of an object's members, without its braces."""
    for index, (name, array) in enumerate(arrays.items()):
        yield b"," + _key(name) if index else _key(name)
        yield from pieces(np.asarray(array, order="C"))


@lru_cache(256)
def _key(name: str) -> bytes:
    return json.dumps(name).encode() + b":"


def written_size(array: _Array) -> int:
    """How many numbers, or lists without any, the text of ``array`` holds."""
    return math.prod(takewhile(bool, array.shape))


def pieces(array: _Array) -> Iterator[bytes]:
    """The text of ``array``, in C order, cut where ``_PIECE`` numbers are reached."""
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


def _text(array: _Array) -> bytes:
    text = orjson.dumps(array if array.ndim else array[()], option=orjson.OPT_SERIALIZE_NUMPY)
    if _UNLUCKY_TEXT in text and array.dtype == np.float32 and (np.abs(array) == _UNLUCKY).any():
        text = text.replace(_UNLUCKY_TEXT, b"7.0385307e-26")
    if b"null" in text:
        text = _with_words(text, array[~np.isfinite(array)])
    return text


def _with_words(text: bytes, values: _Array) -> bytes:
    """``text`` with ``values``, none of them finite, for what orjson wrote as null."""
    kinds = np.where(np.isnan(values), 0, np.where(values < 0, 1, 2))
    if (kinds == kinds[0]).all():
        return text.replace(b"null", _WORDS[kinds[0]])
    parts = [b""] * (2 * kinds.size + 1)
    parts[::2] = text.split(b"null")
    parts[1::2] = [_WORDS[kind] for kind in kinds.tolist()]
    return b"".join(parts)


def _first_tensor_at(prefix: bytes) -> None:
    """A tensor's text is not what the kernels read."""


CODEC = Codec(
    name="json",
    media_types=("application/json",),
    decode=decode,
    encode=encode,
    first_tensor_at=_first_tensor_at,
    at_once=at_once,
    decoded_bytes=decoded_bytes,
    encoded_bytes=encoded_bytes,
    typed=True,
    growth=4,
)
