"""JSON bodies: one object, whose tensors are nested lists of numbers; its other keys are options.

The format: RFC 8259, and the tokens NaN, Infinity and -Infinity besides; in tensors they may be
strings, which is how they are written. A tensor's text goes straight into an array
(``json_tensor``); keys and options are short, and go through the standard library.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any, TypeAlias

import numpy as np
import orjson

from service.codecs.base import Codec, DecodeError, Limits, Message, shown
from service.codecs.json_tensor import (
    DEFAULT,
    FLOATS,
    INTEGER,
    WIDEST,
    Kind,
    Reading,
    checked,
    first_fit,
    read,
    token_at,
)

# Tensors and options of one message: some four times what there is.
MEMBER_LIMIT = 64

# Bytes of one option. Bounds how deep the parser recurses and, as a list takes 56 bytes of memory
# for two of text, how much memory it takes.
OPTION_LIMIT = 1 << 16
KEY_LIMIT = 1 << 10
_DEEPEST = 32  # levels of lists and objects in one option; none needs more than one

_DTYPE, _LABELS, _LOGITS = "dtype", "labels", "logits"
_SPACE = re.compile(rb"[ \t\n\r]{1,65536}+")  # so many with the GIL held
# The only float32 whose shortest text, read as float64, lies halfway to another float32.
_UNLUCKY = np.float32(7.0385307e-26)
_WORDS = (b'"NaN"', b'"-Infinity"', b'"Infinity"')
# Numbers that are written with the GIL held: 16 Ki take some half a millisecond.
_PIECE = 1 << 14
_Array: TypeAlias = np.ndarray[Any, Any]


def decode(body: memoryview, names: frozenset[str], limits: Limits) -> Message:
    """The tensors as new arrays, and every key that is not in ``names`` as an option.

    Floating tensors are of the type that the option ``dtype`` names, which is consumed: float32 by
    default. ``labels`` are int64 if every one is written as an integer, unless their shape is that
    of the logits. A tensor that comes before ``dtype`` may have to be read twice. Raises
    ``DecodeError``, which names the element, and ``TooLarge``.
    """
    tensors: dict[str, Reading] = {}
    options: dict[str, Any] = {}
    at, more = _open(body)
    while more:
        key, at = _key(body, at)
        if key in tensors or key in options:
            raise DecodeError(f"{shown(key)} is there twice", where=_plain(key))
        if len(tensors) + len(options) == MEMBER_LIMIT:
            raise DecodeError(f"more than {MEMBER_LIMIT} tensors and options", where=f"byte {at}")
        if key in names:
            floats = [_kind(options)] if _DTYPE in options else [DEFAULT, WIDEST]
            kinds = [INTEGER, *floats] if key == _LABELS else floats
            tensors[key] = first_fit(body, at, key, kinds, _room(tensors, limits))
            at = tensors[key].at
        else:
            options[key], at = _value(body, at, OPTION_LIMIT, f"option {shown(key)}")
        at, more = _separator(body, at)
    at = _skip_space(body, at)
    if at < len(body):
        raise DecodeError(
            f"{len(body) - at:,} bytes follow the object, from {token_at(body, at)} on",
            where=f"byte {at}",
        )
    floating = _kind(options)
    options.pop(_DTYPE, None)
    for name, first in tensors.items():
        kind = INTEGER if first.kind is INTEGER and not _probable(tensors) else floating
        if kind is not first.kind:
            room = _room(tensors, limits) + first.elements.nbytes
            tensors[name] = checked(body, name, read(body, first.start, kind, room, first.at))
    arrays = {name: tensor.elements.reshape(tensor.shape) for name, tensor in tensors.items()}
    return Message(arrays, options)


def _probable(tensors: Mapping[str, Reading]) -> bool:
    """Whether the labels are class probabilities, though a 1 may be written for each 1.0."""
    return _LOGITS in tensors and tensors[_LOGITS].shape == tensors[_LABELS].shape


def _kind(options: Mapping[str, Any]) -> Kind:
    name = options.get(_DTYPE, DEFAULT.row.name)
    if not isinstance(name, str) or name not in FLOATS:
        given = shown(name) if isinstance(name, str) else f"of type {type(name).__name__}"
        raise DecodeError(f"dtype {given} is not one of {', '.join(FLOATS)}", where=_DTYPE)
    return FLOATS[name]


def _room(tensors: Mapping[str, Reading], limits: Limits) -> int:
    return limits.decoded_bytes - sum(reading.elements.nbytes for reading in tensors.values())


def _open(body: memoryview) -> tuple[int, bool]:
    """Where the first key starts, and whether there is one (else where the object ends)."""
    if bytes(body[:3]) == b"\xef\xbb\xbf":
        raise DecodeError("the body starts with a byte order mark: send it without", where="byte 0")
    at = _skip_space(body, 0)
    if _byte(body, at) != b"{":
        raise DecodeError(
            'the body must be one JSON object in UTF-8, such as {"logits": [[0.5, 1.5]], '
            f'"labels": [1]}}, but starts with {token_at(body, at)}',
            where=f"byte {at}",
        )
    at = _skip_space(body, at + 1)
    empty = _byte(body, at) == b"}"
    return at + empty, not empty


def _key(body: memoryview, at: int) -> tuple[str, int]:
    """The key at ``at``, and where its value starts."""
    if _byte(body, at) != b'"':
        raise DecodeError(f"{token_at(body, at)} where a key in quotes belongs", where=f"byte {at}")
    key, at = _value(body, at, KEY_LIMIT, "a key")
    at = _skip_space(body, at)
    if _byte(body, at) != b":":
        raise DecodeError(
            f"{token_at(body, at)} where a colon belongs, after key {shown(key)}",
            where=f"byte {at}",
        )
    return key, _skip_space(body, at + 1)


def _separator(body: memoryview, at: int) -> tuple[int, bool]:
    """Where the next key starts, and whether there is one (else where the object ends)."""
    at = _skip_space(body, at)
    more = _byte(body, at) == b","
    if not more and _byte(body, at) != b"}":
        raise DecodeError(
            f"{token_at(body, at)} where a comma or the object's closing brace belongs",
            where=f"byte {at}",
        )
    return _skip_space(body, at + 1) if more else at + 1, more


def _is_deep(value: Any) -> bool:
    """Whether ``value`` nests deeper than any option: Python 3.13 decodes thousands of levels."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            child
            for item in level
            if isinstance(item, list | dict)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return bool(level)


def _value(body: memoryview, start: int, limit: int, what: str) -> tuple[Any, int]:
    """The JSON value at ``start``, of at most ``limit`` bytes, and where it ends."""
    window = bytes(body[start : start + limit]).decode("utf-8", "surrogateescape")
    at = start
    try:
        value, end = _DECODER.raw_decode(window)
        if _is_deep(value):
            raise RecursionError
        return value, start + len(window[:end].encode())
    except UnicodeEncodeError:
        problem = "is not UTF-8"
    except RecursionError:
        problem = "is nested too deeply"
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg.lower()}"
        at += len(window[: error.pos].encode("utf-8", "surrogateescape"))
    except ValueError as error:
        problem = str(error)
    if start + limit < len(body):
        problem += f", or longer than {limit:,} bytes"
    raise DecodeError(f"{what} {problem}", where=f"byte {at}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("has a key twice")
    return found


def _integer(text: str) -> int:
    # Longer ones take long to convert.
    value = int(text) if len(text) <= 20 else 2**64
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"holds {shown(text)}, which is more than 64 bits hold")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"holds {shown(text)}, which is more than float64 holds")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite)


def _byte(body: memoryview, at: int) -> bytes:
    return bytes(body[at : at + 1])


def _skip_space(body: memoryview, at: int) -> int:
    while space := _SPACE.match(body, at):
        at = space.end()
    return at


def _plain(text: str) -> str:
    return shown(text)[1:-1]


def encode(arrays: Mapping[str, _Array]) -> bytes:
    """One object of nested lists; what is not finite as "NaN", "Infinity" or "-Infinity".

    float32 and float64 are written with the fewest digits that give the same bits when read as
    float64 and rounded to the array's type.
    """
    pieces = [b"{"]
    for name, array in arrays.items():
        key = json.dumps(name).encode() + b":"
        pieces += [key if len(pieces) == 1 else b"," + key, *_pieces(np.asarray(array, order="C"))]
    # One join: of what is larger than 1 MiB it copies the bytes without the GIL.
    return b"".join([*pieces, b"}"])


def written_size(array: _Array) -> int:
    """How many numbers, or lists without any, the text of ``array`` holds."""
    return math.prod(takewhile(bool, array.shape))


def _pieces(array: _Array) -> Iterator[bytes]:
    """The text of ``array``, cut where ``_PIECE`` numbers are reached."""
    size = written_size(array)
    if size <= _PIECE:
        yield _text(array)
        return
    each = size // len(array)
    if each > _PIECE:
        for index, row in enumerate(array):
            yield b"," if index else b"["
            yield from _pieces(row)
    else:
        step = _PIECE // each
        for start in range(0, len(array), step):
            yield b"," if start else b"["
            yield _text(array[start : start + step])[1:-1]
    yield b"]"


def _text(array: _Array) -> bytes:
    text = orjson.dumps(array if array.ndim else array[()], option=orjson.OPT_SERIALIZE_NUMPY)
    if array.dtype == _UNLUCKY.dtype and (np.abs(array) == _UNLUCKY).any():
        text = text.replace(b"7.038531e-26", b"7.0385307e-26")
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        text = _with_words(text, array[~finite])
    return text


def _with_words(text: bytes, values: _Array) -> bytes:
    """``text`` with ``values``, none of them finite, for what orjson wrote as null."""
    words = np.where(np.isnan(values), 0, np.where(values < 0, 1, 2))
    if (words == words[0]).all():
        return text.replace(b"null", _WORDS[words[0]])
    parts = [b""] * (2 * words.size + 1)
    parts[::2] = text.split(b"null")
    parts[1::2] = [_WORDS[word] for word in words.tolist()]
    return b"".join(parts)


def _first_tensor_at(prefix: bytes) -> None:
    """A tensor's text is not what the kernels read."""


CODEC = Codec(
    name="json",
    media_types=("application/json",),
    decode=decode,
    encode=encode,
    first_tensor_at=_first_tensor_at,
)
