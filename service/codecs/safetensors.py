"""Safetensors format: a length, a JSON header, and the tensors' bytes back to back.

The format: https://github.com/huggingface/safetensors#format. This reader is stricter than the
official one, which accepts duplicate names and headers of 100 MB, and copies the tensors.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

import orjson

from kernels import dtypes
from kernels.dtypes import DType
from service.codecs.base import (
    BOOLEAN,
    IN_ORDER,
    NATURAL,
    Arrays,
    Codec,
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
from service.errors import DecodeError
from service.regimes import AT_ONCE_HEADER_BYTES

# Bytes of a header: some 100 for each of a handful of tensors, the rest for metadata.
HEADER_LIMIT = 1 << 20

# Brackets and commas of a header; a tensor's entry has about ten. Bounds how deep the JSON parser
# recurses and what it allocates, which is 20 times the text where every few bytes are an object.
PUNCTUATION_LIMIT = 4096

# Bytes that the header is padded to a multiple of: a cache line, where the official writer takes 8.
ALIGNMENT = 64

_METADATA = "__metadata__"
# Begin, end, dtype, shape, name.
_Place: TypeAlias = tuple[int, int, DType | None, tuple[int, ...], str]
_Layout: TypeAlias = tuple[tuple[_Place, ...], tuple[tuple[str, str], ...]]  # and the metadata
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
_LENGTH_BYTES = 8
_KNOWN_BYTES = 1 << 10  # longest header that is remembered
_COPIED = 1 << 16  # bytes of tensors that are worth a copy, to be sent at once


class Safetensors(Codec):
    """Safetensors, whose metadata are the options."""

    name = "safetensors"
    media_types = ("application/x-safetensors", "application/vnd.safetensors")

    def decode(self, body: memoryview, names: frozenset[str], limits: Limits) -> Message:
        """Decode the tensors as views of ``body``, and ``__metadata__`` as options.

        Raises ``DecodeError`` and ``TooLarge``.
        """
        start = data_start(bytes(body[:_LENGTH_BYTES]))
        if start is None or start > len(body):
            raise DecodeError(
                "the body must start with the header's length, 8 little-endian bytes that say from "
                f"2 to {HEADER_LIMIT:,}, and that many bytes of header; it is {len(body):,} bytes "
                "long",
                where="byte 0",
            )
        header = bytes(body[_LENGTH_BYTES:start])
        layout_of = _known if len(header) <= _KNOWN_BYTES else _layout
        layout, options = layout_of(header, names, limits.own, limits.boolean)
        data = body[start:]
        tensors = {}
        expected = 0
        for begin, end, row, shape, name in layout:
            if begin != expected or not begin <= end <= len(data):
                raise DecodeError(
                    f"{name}: data_offsets [{begin}, {end}] do not fit: tensors must follow each "
                    f"other without a hole or an overlap, and this one must start at {expected} "
                    f"and end within the {len(data):,} bytes after the header",
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
        others = tuple(name for *_, name in layout if name not in names)
        return Message(tensors, dict(options), others)

    def encode(self, arrays: Arrays) -> bytes | Encoded:
        """Write a body whose data starts 64-byte aligned; large arrays are sent as they lie."""
        header, tensors = _parts(arrays)
        if sum(map(len, tensors)) <= _COPIED:
            return b"".join([header, *tensors])
        return Encoded(header, more=tensors)

    def aligned_at(self, prefix: bytes) -> int | None:
        return data_start(prefix)

    def ready_at(self, prefix: memoryview) -> int | None:
        """Return where the last tensor begins, if ``prefix`` has all the header."""
        start = data_start(bytes(prefix[:_LENGTH_BYTES]))
        if start is None or not start <= len(prefix):
            return None
        header = _header(bytes(prefix[_LENGTH_BYTES:start]))
        header.pop(_METADATA, None)
        names = frozenset(header)
        places = [(*_entry(name, entry, names)[:2], name) for name, entry in header.items()]
        begin, _, name = max(places, default=(0, 0, ""))
        return start + begin if name in IN_ORDER else None

    def at_once(self, body: memoryview) -> bool:
        """Return whether the header is short: decoding reads nothing else."""
        return (data_start(bytes(body[:_LENGTH_BYTES])) or 0) <= AT_ONCE_HEADER_BYTES

    def encoded_bytes(self, arrays: Arrays) -> int:
        if sum(array.nbytes for array in arrays.values()) <= _COPIED:
            return _COPIED
        return sum(0 if array.flags.c_contiguous else array.nbytes for array in arrays.values())


def encode(arrays: Arrays) -> bytes:
    """Write ``arrays`` as a single buffer, otherwise as ``Safetensors.encode`` does."""
    header, tensors = _parts(arrays)
    return b"".join([header, *tensors])


def _layout(raw: bytes, names: frozenset[str], others: bool, boolean: frozenset[str]) -> _Layout:
    """Return the header's tensors in the order of their data, and its metadata.

    With ``others``, tensors of other names than ``names`` are allowed, and get no dtype. Those of
    ``boolean`` may be Boolean.
    """
    header = _header(raw, math.inf if others else PUNCTUATION_LIMIT)
    options = _options(header.pop(_METADATA, {}))
    entries = [
        (*_entry(name, entry, names, others, boolean), name) for name, entry in header.items()
    ]
    return tuple(sorted(entries, key=lambda entry: entry[:2])), tuple(options.items())


# Headers repeat as long as shapes do: 0.1 us where reading that of two tensors takes 9.
_known = lru_cache(256)(_layout)


def data_start(prefix: bytes) -> int | None:
    """Return where the data starts, as ``prefix`` says; ``None`` if it says nothing possible."""
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
        header: dict[str, Any] = json.loads(
            text.decode(),
            object_pairs_hook=_unique,
            parse_int=_natural,
            parse_float=_not_natural,
            parse_constant=_not_natural,
        )
        return header
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
    return int(text) if NATURAL.fullmatch(text) else _not_natural(text)


def _not_natural(text: str) -> NoReturn:
    raise DecodeError(
        f"the header holds the number {shown(text)}: shapes and offsets are integers from 0 to "
        "10**19 - 1",
        where="header",
    )


def _options(metadata: Any) -> dict[str, str]:
    """Return ``__metadata__``, which must map strings to strings that UTF-8 holds, or be null."""
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
    name: str,
    entry: Any,
    names: frozenset[str],
    others: bool = False,
    boolean: frozenset[str] = BOOLEAN,
) -> tuple[int, int, DType | None, tuple[int, ...]]:
    """Return (begin, end, dtype, shape) of a tensor's entry in the header; see ``_layout``."""
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
    row = dtype_named(dtype, dtypes.BY_SAFETENSORS, dtypes.BOOL.safetensors, name, boolean)
    if row is None and own:
        given = shown(dtype) if isinstance(dtype, str) else f"of type {type(dtype).__name__}"
        raise DecodeError(
            f"{name}: dtype {given} is not one of {', '.join(dtypes.BY_SAFETENSORS)}", where=name
        )
    begin, end = _naturals(entry["data_offsets"], f"{name}: data_offsets", name, 2)
    return begin, end, row if own else None, _naturals(entry["shape"], f"{name}: shape", name, None)


def _naturals(values: Any, what: str, where: str, count: int | None) -> tuple[int, ...]:
    """Return ``values``, a list of ``count`` (or any number of) integers; Booleans are none."""
    if (
        not isinstance(values, list)
        or len(values) != (len(values) if count is None else count)
        or not all(type(value) is int for value in values)
    ):
        number = "" if count is None else f"{count} "
        raise DecodeError(f"{what} must be a list of {number}non-negative integers", where=where)
    return tuple(values)


def _parts(arrays: Arrays) -> tuple[bytes, list[memoryview]]:
    """Return the length and header, then each tensor's bytes.

    The widest elements come first, as from the official writer, so that every tensor is aligned to
    its element size.
    """
    rows = {name: row_of(name, array) for name, array in arrays.items()}
    header, tensors, begin = {}, [], 0
    for name, row in sorted(rows.items(), key=lambda item: -item[1].size):
        tensors.append(flat_bytes(arrays[name]))
        end = begin + arrays[name].nbytes
        header[name] = {
            "dtype": row.safetensors,
            "shape": arrays[name].shape,
            "data_offsets": [begin, end],
        }
        begin = end
    text = orjson.dumps(header)
    text += b" " * (-(_LENGTH_BYTES + len(text)) % ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text, tensors


CODEC = Safetensors()
