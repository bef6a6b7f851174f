"""A V2 inference answer: JSON, with the outputs in it, behind it, or in shared memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from service.codecs.base import DecodeError, Encoded, TooLarge, flat_bytes, row_of, shown
from service.codecs.infer_request import InferRequest, Requested
from service.codecs.json_text import BARE, pieces

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
    first: dict[str, Any] = {"model_name": model, "model_version": version}
    if request.id is not None:
        first = {"id": request.id, **first}
    # What json.dumps makes of the answer, but for each output's data, which is put in later.
    parts = [json.dumps(first, separators=(",", ":")).encode()[:-1], b',"outputs":[']
    blobs: list[memoryview] = []
    for index, wanted in enumerate(outputs):
        array = arrays[wanted.name]
        # The protocol has no numbers that are not tensors: a reduced loss has shape [1].
        array = array.reshape(array.shape or 1)
        row = row_of(wanted.name, array)
        entry: dict[str, Any] = {
            "name": wanted.name,
            "datatype": row.v2,
            "shape": list(array.shape),
        }
        if wanted.region is not None:
            _write(array, wanted, targets[wanted.name])
        elif wanted.binary:
            blobs.append(flat_bytes(array))
            entry["parameters"] = {"binary_data_size": array.nbytes}
        parts += [b"," if index else b"", json.dumps(entry, separators=(",", ":")).encode()]
        if wanted.region is None and not wanted.binary:
            parts[-1] = parts[-1][:-1] + b',"data":'
            parts += [*pieces(np.ravel(array), BARE), b"}"]
    parts.append(b"]}")
    if not blobs:
        return Encoded(b"".join(parts), {}, JSON)
    length = sum(map(len, parts))
    padding = -length % _ALIGNMENT
    text = b"".join([*parts, b" " * padding])
    return Encoded(text, {HEADER_LENGTH: str(length + padding)}, BINARY, blobs)


def _write(array: _Array, wanted: Requested, target: _Array) -> None:
    if array.nbytes > target.size:
        raise DecodeError(
            f"output {shown(wanted.name)}: its {array.nbytes:,} bytes are more than the "
            f"{target.size:,} that shared_memory_byte_size gives it",
            where="outputs",
        )
    # By NumPy, which lets other threads run meanwhile.
    target[: array.nbytes] = np.frombuffer(flat_bytes(array), np.uint8)
