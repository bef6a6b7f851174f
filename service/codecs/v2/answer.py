"""V2 inference answer: JSON, with the outputs in it, behind it, or in shared memory."""

from __future__ import annotations

import json

import numpy as np

from service.codecs import compression
from service.codecs.base import Arrays, Encoded, flat_bytes, row_of, shown
from service.codecs.json.codec import pieces
from service.codecs.v2.request import InferRequest
from service.errors import DecodeError

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY, JSON = "application/octet-stream", "application/json"
# Bytes that the JSON is padded to a multiple of, with space: the first tensor is cache-aligned.
_ALIGNMENT = 64
# Bytes of an answer that is worth compressing: a longer one is sent sooner as it is.
_SHORTEST, _LONGEST = 1 << 10, 1 << 22


def encode(
    model: str, version: str, request: InferRequest, arrays: Arrays, targets: Arrays
) -> Encoded:
    """Write ``arrays`` in the order and form that ``request`` asks for.

    ``targets``: by output, the bytes (uint8) of shared memory to write it into. Raises
    ``DecodeError`` if those are too few.
    """
    outputs = request.wanted(arrays)
    own_id = "" if request.id is None else f'"id":{json.dumps(request.id)},'
    parts = [f'{{{own_id}"model_name":"{model}","model_version":"{version}","outputs":['.encode()]
    blobs: list[memoryview] = []
    for index, wanted in enumerate(outputs):
        array = arrays[wanted.name]
        # The protocol has no scalars: a reduced loss has shape [1].
        array = array.reshape(array.shape or 1)
        row = row_of(wanted.name, array)
        shape = ",".join(map(str, array.shape))
        # Names of outputs and models need no escapes.
        parts += [
            b"," if index else b"",
            f'{{"name":"{wanted.name}","datatype":"{row.v2}","shape":[{shape}]'.encode(),
        ]
        if wanted.region is not None:
            target = targets[wanted.name]
            if array.nbytes > target.size:
                raise DecodeError(
                    f"output {shown(wanted.name)}: its {array.nbytes:,} bytes are more than the "
                    f"{target.size:,} that shared_memory_byte_size gives it",
                    where="outputs",
                )
            # NumPy copies without the GIL.
            target[: array.nbytes] = np.frombuffer(flat_bytes(array), np.uint8)
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


def compressed(answer: Encoded, coding: str | None) -> Encoded:
    """Return ``answer`` in ``coding`` if that is given and worth it."""
    parts = (answer.content, *answer.more)
    if coding is None or not _SHORTEST <= sum(map(len, parts)) <= _LONGEST:
        return answer
    headers = {**answer.headers, "Content-Encoding": coding}
    return Encoded(compression.deflate(parts, coding), headers, answer.media_type)
