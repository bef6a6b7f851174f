"""Cross-entropy requests in each format, and the loss in their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.client import Answer, Piece, Request, post
from benchmarks.problems import Array, Case, data_for
from service.codecs import Limits
from service.codecs import safetensors as safetensors_codec
from service.codecs.safetensors import CODEC as SAFETENSORS

_DATATYPES = {"<f4": "FP32", "<i8": "INT64"}
V2 = "/v2/models/cross_entropy/infer"
V1 = "/v1/cross_entropy"
REPORT = "/v1/report"
# Outputs of ``V1`` where none are named.
_ANSWERED = frozenset({"loss", "per_element", "count", "weight_sum", "loss_sum"})
# A body of 1 GB repeats the same 500 rows 16 times, so that the client need not hold it.
_PART = Case((500, 31250))
_PARTS = 16


def v2(tensors: Mapping[str, Array], path: str = V2) -> Request:
    """V2 request for the mean loss, binary tensors in the given order, answered in JSON."""
    inputs = [
        entry(name, array) | {"parameters": {"binary_data_size": array.nbytes}}
        for name, array in tensors.items()
    ]
    header = v2_header(inputs)
    body: list[Piece] = [header, *(array.reshape(-1).view("B").data for array in tensors.values())]
    return post(path, body, inference_header_content_length=str(len(header)))


def large_request(quick: bool = False) -> tuple[Request, float]:
    """A V2 body of 1 GB (``quick``: an eighth), labels first, and its mean loss in float64."""
    data = data_for(_PART.smaller() if quick else _PART)
    labels = np.tile(data.labels, _PARTS)
    rows, classes = data.logits.shape
    inputs = [
        entry("labels", labels) | {"parameters": {"binary_data_size": labels.nbytes}},
        {
            "name": "logits",
            "datatype": "FP32",
            "shape": [rows * _PARTS, classes],
            "parameters": {"binary_data_size": data.logits.nbytes * _PARTS},
        },
    ]
    header = v2_header(inputs)
    logits = data.logits.reshape(-1).view("B").data
    pieces: list[Piece] = [header, labels.view("B").data, *[logits] * _PARTS]
    request = post(V2, pieces, inference_header_content_length=str(len(header)))
    return request, float(data.per_element.mean())


def v2_in_region(region: str, tensors: Mapping[str, Array]) -> Request:
    """V2 request whose tensors lie one after the other in a shared memory region."""
    inputs, offset = [], 0
    for name, array in tensors.items():
        place = {"shared_memory_region": region, "shared_memory_byte_size": array.nbytes}
        inputs.append(entry(name, array) | {"parameters": place | {"shared_memory_offset": offset}})
        offset += array.nbytes
    return post(V2, [v2_header(inputs)]).joined


def entry(name: str, array: Array) -> dict[str, Any]:
    """Name, shape and datatype of a V2 input."""
    return {"name": name, "shape": array.shape, "datatype": _DATATYPES[array.dtype.str]}


def v2_header(inputs: list[dict[str, Any]]) -> bytes:
    """JSON of a V2 request for the mean loss."""
    return json.dumps(
        {
            "inputs": inputs,
            "outputs": [{"name": "loss", "parameters": {"binary_data": False}}],
            "parameters": {"reduction": "mean"},
        }
    ).encode()


def safetensors(
    tensors: Mapping[str, Array], path: str = V1, accept: str = SAFETENSORS.media_types[0]
) -> Request:
    """Request in safetensors; by default for the loss and its elements, in safetensors too."""
    body = [bytes(safetensors_codec.encode(tensors))]
    return post(path, body, content_type=SAFETENSORS.media_types[0], accept=accept).joined


def json_text(tensors: Mapping[str, Array], path: str) -> Request:
    """JSON request of nested lists, with the digits that ``tolist`` gives."""
    body = json.dumps({name: array.tolist() for name, array in tensors.items()}).encode()
    return post(path, [body], content_type="application/json").joined


def checked(answer: Answer) -> Answer:
    """Return ``answer``; raises ``RuntimeError`` with its body where the status is not 200."""
    if answer.status != 200:
        raise RuntimeError(f"answered {answer.status}: {answer.body[:500]!r}")
    return answer


def v2_loss(answer: Answer) -> float:
    """Loss in an answer to ``v2``, ``v2_in_region`` or ``large_request``."""
    [output] = json.loads(checked(answer).body)["outputs"]
    return float(output["data"][0])


def json_loss(answer: Answer) -> float:
    """Loss in a JSON answer."""
    return float(json.loads(checked(answer).body)["loss"])


def safetensors_loss(answer: Answer) -> float:
    """Loss in an answer to ``safetensors``."""
    limits = Limits(decoded_bytes=2**30)
    body = memoryview(checked(answer).body)
    message = SAFETENSORS.decode(body, _ANSWERED, limits)
    return float(message.tensors["loss"])
