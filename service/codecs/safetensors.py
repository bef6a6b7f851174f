"""The safetensors format: a length, a JSON header, and the tensors' bytes back to back.

The format: https://github.com/huggingface/safetensors#format. The reader is stricter than the
official one, which accepts duplicate names and headers of 100 MB, and copies what it reads.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

import orjson

from kernels import dtypes
from kernels.dtypes import DType
from service.codecs.base import (
    LOGITS,
    NATURAL,
    Arrays,
    Codec,
    DecodeError,
    Encoded,
    Limits,
    Message,
    check_name,
    dtype_named,
    flat_bytes,
    row_of,
    shown,
    tensor_view,
)
from service.regimes import AT_ONCE_HEADER_BYTES

# A message holds a handful of tensors, at about 100 bytes of header each; the rest is for metadata.
HEADER_LIMIT = 1 << 20

# Of brackets and commas; a tensor's entry has about ten. Bounds how deep the JSON parser recurses
# and how much it allocates, which is 20 times the text where every few bytes are an object.
PUNCTUATION_LIMIT = 4096

# The official writer pads the header to 8; a multiple of that is as valid, and a whole cache line.
ALIGNMENT = 64

_METADATA = "__metadata__"
# Begin, end, dtype, shape, name.
_Place: TypeAlias = tuple[int, int, DType | None, tuple[int, ...], str]
_Layout: TypeAlias = tuple[tuple[_Place, ...], tuple[tuple[str, str], ...]]  # and the metadata
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
_LENGTH_BYTES = 8
_KNOWN_BYTES = 1 << 10  # of headers that are remembered
_COPIED = 1 << 16  # bytes of tensors that are worth a copy, to be sent at once


def decode(body: memoryview, names: frozenset[str], limits: Limits) -> Message:
    """The tensors as views of ``body``, and the entries of ``__metadata__`` as options."""
    start = _data_start(bytes(body[:_LENGTH_BYTES]))
    if start is None or start > len(body):
        raise DecodeError(
            "the body must start with the header's length, 8 little-endian bytes that say from 2 "
            f"to {HEADER_LIMIT:,}, and that many bytes of header; it is {len(body):,} bytes long",
            where="byte 0",
        )
    header = bytes(body[_LENGTH_BYTES:start])
    layout_of = _known if len(header) <= _KNOWN_BYTES else _layout
    layout, options = layout_of(header, names, limits.own)
    data = body[start:]
    tensors = {}
    expected = 0
    for begin, end, row, shape, name in layout:
        if begin != expected or not begin <= end <= len(data):
            raise DecodeError(
                f"{name}: data_offsets [{begin}, {end}] do not fit: tensors must follow each "
                f"other without a hole or an overlap, and this one must start at {expected} and "
                f"end within the {len(data):,} bytes after the header",
                where=name,
            )
        if row is not None:
            tensors[name] = tensor_view(data[begin:end], row, shape, limits, where=name)
        expected = end
    if expected != len(data):
        raise DecodeError(
            f"{len(data) - expected:,} bytes after the last tensor belong to none",
            where=f"byte {start + expected}",
        )
    return Message(tensors, dict(options), tuple(name for *_, name in layout if name not in names))


def _layout(raw: bytes, names: frozenset[str], others: bool) -> _Layout:
    """The header's tensors in the order of their data, those of ``others`` without a dtype."""
    header = _header(raw, math.inf if others else PUNCTUATION_LIMIT)
    options = _options(header.pop(_METADATA, {}))
    entries = [(*_entry(name, entry, names, others), name) for name, entry in header.items()]
    return tuple(sorted(entries, key=lambda entry: entry[:2])), tuple(options.items())


# A client's headers are the same, from request to request, as long as its shapes are.
_known = lru_cache(256)(_layout)


def _data_start(prefix: bytes) -> int | None:
    """Where the data starts according to the body's first bytes; ``None`` if that is impossible."""
    length = int.from_bytes(prefix[:_LENGTH_BYTES], "little")
    if len(prefix) < _LENGTH_BYTES or not len("{}") <= length <= HEADER_LIMIT:
        return None
    return _LENGTH_BYTES + length


def _header(text: bytes, punctuation: float = PUNCTUATION_LIMIT) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise DecodeError("the header must be a JSON object, from its first byte", where="byte 8")
    if sum(map(text.count, (b"[", b"{", b","))) > punctuation:
        raise DecodeError(
            f"the header has more than {punctuation:,} brackets and commas", where="header"
        )
    try:
        return _parse(text.decode())
    except UnicodeDecodeError as error:
        raise DecodeError(
            "the header must be UTF-8", where=f"byte {_LENGTH_BYTES + error.start}"
        ) from None
    except json.JSONDecodeError as error:
        raise DecodeError(
            f"the header is not JSON: {error.msg} (character {error.pos} of the header)",
            where="header",
        ) from None
    except RecursionError:
        raise DecodeError("the header is nested too deeply", where="header") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DecodeError(f"the header has {shown(key)} twice", where="header")
        found[key] = value
    return found


def _natural(text: str) -> int:
    if not NATURAL.fullmatch(text):
        _not_natural(text)
    return int(text)


def _not_natural(text: str) -> NoReturn:
    raise DecodeError(
        f"the header holds the number {shown(text)}: shapes and offsets are integers from 0 to "
        "10**19 - 1",
        where="header",
    )


def _parse(text: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(
        text,
        object_pairs_hook=_unique,
        parse_int=_natural,
        parse_float=_not_natural,
        parse_constant=_not_natural,
    )
    return parsed


def _options(metadata: Any) -> dict[str, str]:
    """``__metadata__``, which must map strings to strings that UTF-8 can hold; null is nothing."""
    try:
        given = () if metadata is None else metadata.items()
        found = {name: text for name, text in given if text is not None}
        "".join((*found, *found.values())).encode()
    except (AttributeError, TypeError, UnicodeEncodeError):
        raise DecodeError(
            f"{_METADATA} must be an object whose values are strings, without lone surrogates",
            where=_METADATA,
        ) from None
    return found


def _entry(
    name: str, entry: Any, names: frozenset[str], others: bool = False
) -> tuple[int, int, DType | None, tuple[int, ...]]:
    """(begin, end, dtype, shape) of one tensor's entry in the header; see ``_layout``."""
    own = not others or name in names
    if own:
        check_name(name, names)
    else:
        name = shown(name)
    if not isinstance(entry, dict) or entry.keys() != _ENTRY_KEYS:
        raise DecodeError(
            f"{name}: a tensor's entry is an object of exactly dtype, shape and data_offsets",
            where=name,
        )
    dtype = entry["dtype"]
    row = dtype_named(dtype, dtypes.BY_SAFETENSORS, dtypes.BOOL.safetensors, name)
    if row is None and own:
        given = shown(dtype) if isinstance(dtype, str) else f"of type {type(dtype).__name__}"
        raise DecodeError(
            f"{name}: dtype {given} is not one of {', '.join(dtypes.BY_SAFETENSORS)}", where=name
        )
    begin, end = _naturals(entry["data_offsets"], f"{name}: data_offsets", name, 2)
    return begin, end, row if own else None, _naturals(entry["shape"], f"{name}: shape", name, None)


def _naturals(values: Any, what: str, where: str, count: int | None) -> tuple[int, ...]:
    """``values``, a list of ``count`` (or any number of) integers; bools are none."""
    if (
        not isinstance(values, list)
        or len(values) != (len(values) if count is None else count)
        or not all(type(value) is int for value in values)
    ):
        number = "" if count is None else f"{count} "
        raise DecodeError(f"{what} must be a list of {number}non-negative integers", where=where)
    return tuple(values)


def at_once(body: memoryview) -> bool:
    """Whether the header is short: nothing else is looked at."""
    return (_data_start(bytes(body[:_LENGTH_BYTES])) or 0) <= AT_ONCE_HEADER_BYTES


def ready_at(prefix: memoryview) -> int | None:
    """Where the logits begin, if all of the header is in ``prefix`` and no tensor follows them."""
    start = _data_start(bytes(prefix[:_LENGTH_BYTES]))
    if start is None or not start <= len(prefix):
        return None
    with suppress(DecodeError):
        header = _header(bytes(prefix[_LENGTH_BYTES:start]))
        header.pop(_METADATA, None)
        names = frozenset(header)
        places = [(*_entry(name, entry, names)[:2], name) for name, entry in header.items()]
        begin, _, name = max(places, default=(0, 0, ""))
        return start + begin if name in LOGITS else None
    return None


def encode(arrays: Arrays) -> bytes:
    """``arrays`` as a safetensors body whose data starts 64-byte aligned."""
    return b"".join(_parts(arrays))


def encoded_bytes(arrays: Arrays) -> int:
    """Bytes that ``answer`` copies."""
    if sum(array.nbytes for array in arrays.values()) <= _COPIED:
        return _COPIED
    return sum(0 if array.flags.c_contiguous else array.nbytes for array in arrays.values())


def answer(arrays: Arrays) -> bytes | Encoded:
    """What ``encode`` gives, but large arrays where they lie."""
    header, *tensors = _parts(arrays)
    if sum(map(len, tensors)) <= _COPIED:
        return b"".join([header, *tensors])
    return Encoded(header, more=tensors)


def _parts(arrays: Arrays) -> list[memoryview]:
    """The header, and each tensor's bytes.

    The widest elements come first, as from the official writer, so every tensor is aligned to its
    element size.
    """
    prefix, ordered = _prefix(
        tuple([(name, row_of(name, array), array.shape) for name, array in arrays.items()])
    )
    return [prefix, *[flat_bytes(arrays[name]) for name in ordered]]


# Answers are alike, from request to request, as long as their shapes are.
@lru_cache(256)
def _prefix(
    tensors: tuple[tuple[str, DType, tuple[int, ...]], ...],
) -> tuple[memoryview, tuple[str, ...]]:
    """What comes before the data of ``tensors``, and the order of that."""
    header = {}
    begin = 0
    for name, row, shape in sorted(tensors, key=lambda tensor: -tensor[1].size):
        end = begin + math.prod(shape) * row.size
        header[name] = {
            "dtype": row.safetensors,
            "shape": shape,
            "data_offsets": [begin, end],
        }
        begin = end
    text = orjson.dumps(header)
    text += b" " * (-(_LENGTH_BYTES + len(text)) % ALIGNMENT)
    return memoryview(len(text).to_bytes(_LENGTH_BYTES, "little") + text), tuple(header)


CODEC = Codec(
    name="safetensors",
    media_types=("application/x-safetensors", "application/vnd.safetensors"),
    decode=decode,
    encode=answer,
    first_tensor_at=_data_start,
    at_once=at_once,
    encoded_bytes=encoded_bytes,
    ready_at=ready_at,
)
