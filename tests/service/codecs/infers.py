"""V2 requests as clients write them, and the codec's answers as they read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from kernels import dtypes
from service.codecs.base import Encoded, Limits, Message
from service.codecs.v2.codec import Inference
from service.codecs.v2.model import Model
from service.codecs.v2.request import Region
from tests.service.codecs.samples import LIMITS, Array

NAMES = frozenset({"logits", "labels", "weight"})
MODEL = Model("cross_entropy", "1", "logits", ("loss", "per_element", "rank"), chooses=True)


class Memory:
    """Shared memory that is a dict of arrays."""

    def __init__(self, regions: Mapping[str, Array] | None = None) -> None:
        self.regions = regions or {}
        self.checks = 0

    def view(self, region: Region) -> Array:
        whole = self.regions[region.name]
        return whole[region.offset : region.offset + region.size]

    def check_apart(self, read: Mapping[str, Region], written: Mapping[str, Region]) -> None:
        assert not {*read.values()} & {*written.values()}

    def check(self) -> None:
        self.checks += 1


def inference(
    header: int | None = None,
    *,
    coding: str | None = None,
    reply_coding: str | None = None,
    memory: Memory | None = None,
    model: Model = MODEL,
    limits: Limits = LIMITS,
) -> Inference:
    return Inference(
        model=model,
        header_length=header,
        coding=coding,
        reply_coding=reply_coding,
        memory=memory or Memory(),
        names=NAMES,
        limits=limits,
    )


def declared(name: str, array: Array, **members: Any) -> dict[str, Any]:
    """An input's entry without its elements."""
    row = dtypes.BOOL if array.dtype == np.bool_ else dtypes.of(array)
    assert row is not None
    return {"name": name, "datatype": row.v2, "shape": list(array.shape), **members}


def binary(tensors: Mapping[str, Array], **members: Any) -> tuple[bytes, int]:
    """A request with binary tensors, and the length of its JSON."""
    inputs = [
        declared(name, array, parameters={"binary_data_size": array.nbytes})
        for name, array in tensors.items()
    ]
    text = json.dumps({"inputs": inputs, **members}).encode()
    return text + b"".join(array.tobytes() for array in tensors.values()), len(text)


def decoded(body: bytes | str, header: int | None = None, **given: Any) -> Message:
    raw = body.encode() if isinstance(body, str) else body
    made = inference(header, **given)
    return made.decode(memoryview(bytearray(raw)), NAMES, made.limits)


def asked(members: Mapping[str, Any], arrays: Mapping[str, Array], **given: Any) -> Encoded:
    """The answer that ``arrays`` are to a request of no inputs with ``members``."""
    made = inference(**given)
    body = json.dumps({"inputs": [], **members}).encode()
    made.decode(memoryview(body), NAMES, made.limits)
    return made.encode(arrays)


def parsed(answer: Encoded) -> tuple[dict[str, Any], dict[str, Array]]:
    """The JSON of an answer, and its outputs."""
    content = b"".join([answer.content, *answer.more])
    length = int(answer.headers.get("Inference-Header-Content-Length", len(content)))
    text = json.loads(content[:length])
    arrays, at = {}, length
    for output in text["outputs"]:
        row = dtypes.BY_V2[output["datatype"]]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            flat = np.frombuffer(content[at : at + size], row.numpy)
            at += size
        elif "data" in output:
            flat = np.array(output["data"], row.numpy)
        else:
            continue
        arrays[output["name"]] = flat.reshape(output["shape"])
    assert at == len(content)
    return text, arrays
