"""JSON of a V2 inference request: its inputs, where their elements are, and its outputs.

The format: https://github.com/kserve/open-inference-protocol, "Inference Request JSON Object", and
Triton's binary tensor and shared memory extensions. Keys that mean nothing are ignored, as other
servers do and clients rely on; but no key may be there twice, and what is null is not there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels.dtypes import BOOL, DType
from service.codecs.base import MAX_RANK, Array, Limits, check_name, shown
from service.codecs.json.tensor import INTEGER, Reading, elements
from service.codecs.v2.members import MEMBER_LIMIT, declared, kind_of, members
from service.codecs.v2.parameters import (
    LARGEST,
    as_object,
    flag,
    known_parameters,
    natural,
    tensor_parameters,
)
from service.errors import DecodeError

ID_LIMIT = 1024  # characters that are sent back

_SOURCES = ("data", "binary_data_size", "shared_memory_region")


class Region(NamedTuple):
    """Bytes of the shared memory region that the client registered under ``name``."""

    name: str
    offset: int
    size: int


class Input(NamedTuple):
    """Tensor that comes with the request.

    ``source``: the elements, flat, that ``data`` gave (integers are int64 then, and so is ``row``);
    or how many of the body's bytes behind the JSON they are; or their place in shared memory.
    """

    name: str
    row: DType
    shape: tuple[int, ...]
    source: Array | int | Region


class Requested(NamedTuple):
    """Output that is asked for: binary, written into a region, or else in JSON."""

    name: str
    binary: bool
    region: Region | None

    @property
    def text(self) -> bool:
        """True if its numbers are in the answer's JSON."""
        return not self.binary and self.region is None


class InferRequest(NamedTuple):
    """Whole request; ``binary``: outputs are binary if none is asked for by name."""

    id: str | None
    options: dict[str, Any]
    inputs: tuple[Input, ...]
    outputs: tuple[Requested, ...]
    binary: bool

    def wanted(self, names: Iterable[str]) -> Sequence[Requested]:
        """Return the outputs that were asked for, or else all of ``names``."""
        return self.outputs or [Requested(name, self.binary, None) for name in names]

    @property
    def read(self) -> dict[str, Region]:
        """Regions of the inputs in shared memory, by name."""
        sources = {entry.name: entry.source for entry in self.inputs}
        return {name: at for name, at in sources.items() if isinstance(at, Region)}

    @property
    def written(self) -> dict[str, Region]:
        """Regions of the outputs in shared memory, by name."""
        return {wanted.name: wanted.region for wanted in self.outputs if wanted.region is not None}


def parse(text: memoryview, names: frozenset[str], limits: Limits) -> InferRequest:
    """Read the request whose JSON ``text`` is; ``names`` are those that inputs may have.

    Elements are read straight into arrays (``json.tensor``). Raises ``DecodeError``, ``TooLarge``
    if those arrays take more than ``limits`` allow, and ``TakesLong``.
    """
    found = members(text, names, limits)
    options = known_parameters(found, "parameters")
    binary = flag(options.pop("binary_data_output", None), False, "binary_data_output")
    inputs = tuple(_input(entry, text, names, limits) for entry in _list(found, "inputs"))
    outputs = tuple(_requested(entry, binary) for entry in _list(found, "outputs"))
    for entries in (inputs, outputs):
        called = [entry.name for entry in entries]
        for name in called:
            if called.count(name) > 1:
                raise DecodeError(f"{shown(name)} is there twice", where=shown(name))
    own_id = found.get("id")
    if own_id is not None and not (isinstance(own_id, str) and len(own_id) <= ID_LIMIT):
        raise DecodeError(f"id must be a string of at most {ID_LIMIT} characters", where="id")
    return InferRequest(own_id, options, inputs, outputs, binary)


def _input(entry: Any, text: memoryview, names: frozenset[str], limits: Limits) -> Input:
    entry = as_object(entry, "an input")
    name = _name(entry, "input")
    check_name(name, names)
    row, shape = declared(entry), _shape(entry, name)
    parameters = tensor_parameters(entry, name)
    given = {key: parameters.get(key) for key in _SOURCES[1:]} | {"data": entry.get("data")}
    sources = [key for key, value in given.items() if value is not None]
    if len(sources) != 1:
        raise DecodeError(
            f"{name}: exactly one of data, binary_data_size and shared_memory_region says where its"
            f" elements are, not {' and '.join(sources) or 'none'}",
            where=name,
        )
    if isinstance(given["data"], Reading):
        elements = _elements(given["data"], text, name, row, shape, limits)
        return Input(name, row if row is BOOL else kind_of(row).row, shape, elements)
    size = math.prod(shape) * row.size
    region = _region(parameters, name)
    if region is None:
        present = natural(given["binary_data_size"], f"{name}: binary_data_size", name)
    else:
        present = region.size
    if present != size:
        raise DecodeError(
            f"{name}: shape {list(shape)} of {row.v2} takes {_bytes(size)}, but {_bytes(present)} "
            "are declared",
            where=name,
        )
    return Input(name, row, shape, present if region is None else region)


def _elements(
    reading: Reading,
    text: memoryview,
    name: str,
    row: DType,
    shape: tuple[int, ...],
    limits: Limits,
) -> Array:
    """Return the elements of ``reading`` as ``row``'s.

    They must be as many as ``shape`` says, flat or nested as the shape is.
    """
    kind = kind_of(row)
    if kind != reading.kind:
        room = limits.decoded_bytes
        reading = elements(text, reading.start, name, kind, room, reading.at, limits.until)
    flat = len(reading.shape) == 1 and reading.shape[0] == math.prod(shape)
    if not flat and reading.shape != shape:
        raise DecodeError(
            f"{name}: data of shape {list(reading.shape)} is neither of shape {list(shape)} nor a "
            f"flat list of {math.prod(shape):,} numbers",
            where=name,
        )
    if kind is INTEGER and reading.elements.size:
        least, most = np.iinfo(row.numpy).min, np.iinfo(row.numpy).max
        for value in (int(reading.elements.min()), int(reading.elements.max())):
            if not least <= value <= most:
                raise DecodeError(
                    f"{name}: data has {value}, and {row.v2} holds {least} to {most}", where=name
                )
    if row is BOOL and ((reading.elements != 0) & (reading.elements != 1)).any():
        raise DecodeError(f"{name}: data of {row.v2} must be true or false, or 1 or 0", where=name)
    return reading.elements != 0 if row is BOOL else reading.elements


def _requested(entry: Any, binary: bool) -> Requested:
    entry = as_object(entry, "an output")
    name = _name(entry, "output")
    what = shown(name)
    parameters = tensor_parameters(entry, f"output {what}")
    if "classification" in parameters:
        raise DecodeError(
            f"output {what}: classification is not offered: ask for prediction or rank",
            where="outputs",
        )
    region = _region(parameters, f"output {what}")
    # The request's default does not apply to shared memory; the output's own parameter must not.
    own = flag(parameters.get("binary_data"), binary and region is None, "binary_data")
    if own and region is not None:
        raise DecodeError(
            f"output {what}: either binary_data or shared_memory_region says where it goes",
            where="outputs",
        )
    return Requested(name, own, region)


def _region(parameters: Mapping[str, Any], where: str) -> Region | None:
    name = parameters.get("shared_memory_region")
    if name is None:
        return None
    if not isinstance(name, str):
        raise DecodeError(f"{where}: shared_memory_region must be a string", where=where)
    at, size = "shared_memory_offset", "shared_memory_byte_size"
    return Region(
        name,
        natural(parameters.get(at, 0), f"{where}: {at}", where),
        natural(parameters.get(size), f"{where}: {size}", where),
    )


def _shape(entry: Mapping[str, Any], name: str) -> tuple[int, ...]:
    extents = entry.get("shape")
    if not isinstance(extents, list) or len(extents) > MAX_RANK:
        raise DecodeError(
            f"{name}: shape must be a list of at most {MAX_RANK} integers", where=name
        )
    return tuple(natural(extent, f"{name}: an extent of shape", name) for extent in extents)


def _list(found: Mapping[str, Any], name: str) -> list[Any]:
    value = found.get(name)
    if value is None and name == "outputs":
        return []
    if not isinstance(value, list) or len(value) > MEMBER_LIMIT:
        raise DecodeError(f"{name} must be a list of at most {MEMBER_LIMIT} objects", where=name)
    return value


def _name(entry: Mapping[str, Any], what: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise DecodeError(f"an {what} must have a name, which is a string", where=f"{what}s")
    return name


def _bytes(size: int) -> str:
    return f"{size:,} bytes" if size <= LARGEST else "more than 2**63 bytes"
