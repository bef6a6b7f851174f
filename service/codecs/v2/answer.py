"""A V2 inference answer: JSON, with the outputs in it, behind it, or in shared memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from service.codecs.base import DecodeError, Encoded, TooLarge, flat_bytes, row_of, shown
from service.codecs.json.codec import pieces
from service.codecs.v2.request import InferRequest, Requested

_Array: TypeAlias = np.ndarray[Any, Any]

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY, JSON = "application/octet-stream", "application/json"
# Space behind the JSON is JSON too: with it the first tensor is on a cache line of its own.
_ALIGNMENT = 64


def encode(
    model: str,
    version: str,
    request: InferRequest,
    arrays: Mapping[str, _Array],
    targets: Mapping[str, _Array],
    most_numbers: int,
) -> Encoded:
    """``arrays`` in the order and form that ``request`` asks for.

    ``targets``: by output, the bytes of shared memory to write it into. Raises ``DecodeError``
    where those are too few, ``TooLarge`` where JSON would have to hold more than ``most_numbers``.
    """
    outputs = request.wanted(arrays)
    numbers = sum(
        arrays[wanted.name].size for wanted in outputs if not (wanted.binary or wanted.region)
    )
    if numbers > most_numbers:
        raise TooLarge(
            f"the answer would hold {numbers:,} numbers, and JSON at most {most_numbers:,}: ask for"
            " its outputs with binary_data",
            where="outputs",
        )
    parts = [b"{", _members(model_name=model, model_version=version), b',"outputs":[']
    if request.id is not None:
        parts[1:1] = [b'"id":', json.dumps(request.id).encode(), b","]
    blobs: list[memoryview] = []
    for index, wanted in enumerate(outputs):
        array = arrays[wanted.name]
        # The protocol has no numbers that are not tensors: a reduced loss has shape [1].
        array = array.reshape(array.shape or 1)
        row = row_of(wanted.name, array)
        parts += [
            b",{" if index else b"{",
            _members(name=wanted.name, datatype=row.v2, shape=array.shape),
        ]
        if wanted.region is not None:
            _write(array, wanted, targets[wanted.name])
        elif wanted.binary:
            blobs.append(flat_bytes(array))
            parts.append(b',"parameters":{"binary_data_size":%d}' % array.nbytes)
        else:
            parts += [b',"data":', *pieces(np.ravel(array))]
        parts.append(b"}")
    parts.append(b"]}")
    if not blobs:
        return Encoded(b"".join([*parts, b"\n"]), {}, JSON)
    length = sum(map(len, parts))
    padding = -length % _ALIGNMENT
    text = b"".join([*parts, b" " * padding])
    return Encoded(text, {HEADER_LENGTH: str(length + padding)}, BINARY, blobs)


# What is said of outputs is the same again and again.
@lru_cache(256)
def _members(**members: Any) -> bytes:
    """The text of an object's ``members``, without its braces."""
    return json.dumps(members, separators=(",", ":")).encode()[1:-1]


def _write(array: _Array, wanted: Requested, target: _Array) -> None:
    if array.nbytes > target.size:
        raise DecodeError(
            f"output {shown(wanted.name)}: its {array.nbytes:,} bytes are more than the "
            f"{target.size:,} that shared_memory_byte_size gives it",
            where="outputs",
        )
    # By NumPy, which lets other threads run meanwhile.
    target[: array.nbytes] = np.frombuffer(flat_bytes(array), np.uint8)
