"""Walk of the JSON of a V2 inference request, elements straight into arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from kernels import dtypes
from kernels.dtypes import DType
from service.codecs.base import Limits, check_name, dtype_named, shown
from service.codecs.json import tensor
from service.codecs.json.members import (
    VALUE_LIMIT,
    byte_at,
    close_body,
    enter,
    key_at,
    next_at,
    open_body,
    value_at,
)
from service.codecs.json.tensor import DEFAULT, FLOATS, INTEGER, WIDEST, Kind, Reading
from service.errors import DecodeError

MEMBER_LIMIT = 64  # members of an object or list: some four times what any needs
TOTAL_LIMIT = 512  # members of a whole request: some ten times what any needs

_EXAMPLE = (
    '{"inputs": [{"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.5]}]}'
)
_FIT = re.compile(r"\w{1,60}", re.ASCII)
# Function of the members read so far and a value's offset, to the value and its end.
_Reader: TypeAlias = Callable[[dict[str, Any], int], tuple[Any, int]]


class _Left:
    """Members that a request may still have, and bytes of values that are not elements."""

    def __init__(self) -> None:
        self.members = TOTAL_LIMIT
        self.size = VALUE_LIMIT

    def value_at(self, text: memoryview, at: int, what: str) -> tuple[Any, int]:
        """Return the value at ``at`` and its end, and count its bytes."""
        value, end = value_at(text, at, self.size, what)
        self.size = max(self.size - (end - at), 1)
        return value, end


def has_elements(raw: bytes) -> bool:
    """Return whether JSON may hold tensors' elements: under a key that may hide in escapes."""
    return b'"data"' in raw or b"\\" in raw


def members(text: memoryview, names: frozenset[str], limits: Limits) -> dict[str, Any]:
    """Return the request as JSON's own types, but each input's ``data`` as a ``Reading``.

    ``data`` before its ``datatype`` is read as float64, or Boolean; null is ``None``. Raises
    ``DecodeError``, at once for an input that is none of ``names``, ``TooLarge`` if those arrays
    take more than ``limits`` allow, and ``TakesLong``.
    """
    raw = bytes(text[: VALUE_LIMIT + 1])
    if len(raw) <= VALUE_LIMIT and raw.startswith(b"{") and not has_elements(raw):
        # Nothing of it is long, and no key hides in escapes: one call, in a fifth of the time.
        found: dict[str, Any]
        found, at = value_at(text, 0, VALUE_LIMIT, "the JSON")
    else:
        left = _Left()
        at, more = open_body(text, _EXAMPLE)
        inputs = partial(_entries, text, names, limits, left)
        found, at = _object_at(text, at, more, left, {"inputs": inputs})
    close_body(text, at)
    return found


def _object_at(
    text: memoryview, at: int, more: bool, left: _Left, own: Mapping[str, _Reader]
) -> tuple[dict[str, Any], int]:
    """Return the object whose first key is at ``at`` if there is ``more``, and its end.

    ``own``: by key, what reads long values.
    """
    members: dict[str, Any] = {}
    while more:
        key, at = key_at(text, at)
        if key in members:
            raise DecodeError(f"{shown(key)} is there twice", where=shown(key)[1:-1])
        if len(members) == MEMBER_LIMIT:
            raise DecodeError(f"more than {MEMBER_LIMIT} members in one object", where=f"byte {at}")
        if not left.members:
            raise DecodeError(f"more than {TOTAL_LIMIT} members in all", where=f"byte {at}")
        left.members -= 1
        if key in own:
            members[key], at = own[key](members, at)
        else:
            members[key], at = left.value_at(text, at, shown(key))
        at, more = next_at(text, at)
    return members, at


def _entries(
    text: memoryview,
    names: frozenset[str],
    limits: Limits,
    left: _Left,
    _: Mapping[str, Any],
    at: int,
) -> tuple[list[dict[str, Any]], int]:
    """Return the inputs of the list at ``at``, and its end."""
    if byte_at(text, at) != b"[":
        raise _no_inputs(text, at)
    entries: list[dict[str, Any]] = []
    at, more = enter(text, at, "]")
    while more:
        if byte_at(text, at) != b"{" or len(entries) == MEMBER_LIMIT:
            raise _no_inputs(text, at)
        readings = [entry["data"] for entry in entries if entry.get("data") is not None]
        room = limits.decoded_bytes - sum(reading.elements.nbytes for reading in readings)
        own = {
            "name": partial(_called_one_of, text, names, left),
            "data": partial(_data, text, room, limits.until),
        }
        start, inside = enter(text, at, "}")
        entry, at = _object_at(text, start, inside, left, own)
        entries.append(entry)
        at, more = next_at(text, at, "]")
    return entries, at


def _no_inputs(text: memoryview, at: int) -> DecodeError:
    found = tensor.token_at(text, at)
    return DecodeError(
        f"inputs must be a list of at most {MEMBER_LIMIT} objects, but has {found}", where="inputs"
    )


def _called_one_of(
    text: memoryview, names: frozenset[str], left: _Left, _: Mapping[str, Any], at: int
) -> tuple[Any, int]:
    name, end = left.value_at(text, at, "'name'")
    if isinstance(name, str):
        check_name(name, names)
    return name, end


def _data(
    text: memoryview, room: int, until: float, entry: Mapping[str, Any], at: int
) -> tuple[Reading | None, int]:
    end = tensor.null_at(text, at)
    if end is not None:
        return None, end
    kind = kind_of(declared(entry)) if "datatype" in entry else WIDEST.boolean
    reading = tensor.elements(text, at, _called(entry) or "data", kind, room, until=until)
    return reading, reading.at


def _called(entry: Mapping[str, Any]) -> str | None:
    """Name of an input, if it is known and fit to be shown in errors."""
    name = entry.get("name")
    return name if isinstance(name, str) and _FIT.fullmatch(name) else None


def declared(entry: Mapping[str, Any]) -> DType:
    """Return the dtype that an input's ``datatype`` says; raises ``DecodeError`` if it says none.

    An input whose name is not read yet may be a weight.
    """
    datatype = entry.get("datatype")
    row = dtype_named(datatype, dtypes.BY_V2, dtypes.BOOL.v2, entry.get("name", "weight"))
    if row is None:
        given = shown(datatype) if isinstance(datatype, str) else "that is no string"
        name = _called(entry)
        raise DecodeError(
            f"{name or 'an input'}: a datatype {given}: it must be one of"
            f" {', '.join(dtypes.BY_V2)}",
            where=name or "datatype",
        )
    return row


def kind_of(row: DType) -> Kind:
    """Return the kind that elements are read as: integers as int64, Booleans as float32."""
    if row is dtypes.BOOL:
        return DEFAULT.boolean
    return FLOATS.get(row.name, INTEGER)
