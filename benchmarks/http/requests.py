"""Cross-entropy requests as each side reads them, and the loss in their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.http.client import Answer, Piece, Request, post
from service.codecs import Limits
from service.codecs import safetensors as safetensors_codec
from service.codecs.safetensors import CODEC as SAFETENSORS

Array = np.ndarray[Any, Any]

_DATATYPES = {"<f4": "FP32", "<i8": "INT64"}
V2 = "/v2/models/cross_entropy/infer"
V1 = "/v1/cross_entropy"


def v2(tensors: Mapping[str, Array], path: str = V2) -> Request:
    """The mean loss as V2 with binary tensors in the order of ``tensors``; answered in JSON."""
    inputs = [
        entry(name, array) | {"parameters": {"binary_data_size": array.nbytes}}
        for name, array in tensors.items()
    ]
    header = v2_header(inputs)
    body: list[Piece] = [header, *(array.reshape(-1).view("B").data for array in tensors.values())]
    return post(path, body, inference_header_content_length=str(len(header)))


def v2_in_region(region: str, tensors: Mapping[str, Array]) -> Request:
    """The same with the tensors one after the other in a shared memory region."""
    inputs, offset = [], 0
    for name, array in tensors.items():
        place = {"shared_memory_region": region, "shared_memory_byte_size": array.nbytes}
        inputs.append(entry(name, array) | {"parameters": place | {"shared_memory_offset": offset}})
        offset += array.nbytes
    return post(V2, [v2_header(inputs)]).joined


def entry(name: str, array: Array) -> dict[str, Any]:
    """What V2 says of a tensor, wherever it is."""
    return {"name": name, "shape": array.shape, "datatype": _DATATYPES[array.dtype.str]}


def v2_header(inputs: list[dict[str, Any]]) -> bytes:
    """The JSON of a request for the mean."""
    return json.dumps(
        {
            "inputs": inputs,
            "outputs": [{"name": "loss", "parameters": {"binary_data": False}}],
            "parameters": {"reduction": "mean"},
        }
    ).encode()


def safetensors(tensors: Mapping[str, Array]) -> Request:
    """The loss and its elements as safetensors."""
    body = [bytes(safetensors_codec.encode(tensors))]
    return post(V1, body, content_type=SAFETENSORS.media_types[0]).joined


def json_text(tensors: Mapping[str, Array], path: str) -> Request:
    """Nested lists, with the digits that ``tolist`` gives, as most clients send them."""
    body = json.dumps({name: array.tolist() for name, array in tensors.items()}).encode()
    return post(path, [body], content_type="application/json").joined


def checked(answer: Answer) -> Answer:
    """``answer``, if it is a success. Raises ``RuntimeError`` with what it says otherwise."""
    if answer.status != 200:
        raise RuntimeError(f"answered {answer.status}: {answer.body[:500]!r}")
    return answer


def v2_loss(answer: Answer) -> float:
    """The loss in an answer to ``v2`` or ``v2_in_region``."""
    [output] = json.loads(checked(answer).body)["outputs"]
    return float(output["data"][0])


def json_loss(answer: Answer) -> float:
    """The loss in a JSON object."""
    return float(json.loads(checked(answer).body)["loss"])


def safetensors_loss(answer: Answer) -> float:
    """The loss in an answer to ``safetensors``."""
    limits = Limits(decoded_bytes=2**30)
    body = memoryview(checked(answer).body)
    message = SAFETENSORS.decode(body, frozenset({"loss", "per_element"}), limits)
    return float(message.tensors["loss"])
