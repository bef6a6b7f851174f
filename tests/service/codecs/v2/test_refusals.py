"""Every V2 request that is refused, and what it is told."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from service.codecs.base import Limits
from service.errors import TooLarge
from tests.service.codecs.infers import Memory, binary, declared, decoded
from tests.service.codecs.samples import refusal

LOGITS = np.zeros((2, 3), np.float32)
LATE = declared("logits", LOGITS)
ENTRY = {**LATE, "data": [0] * 6}


def told(body: Any, header: int | None = None, **given: Any) -> str:
    text = body if isinstance(body, bytes | str) else json.dumps(body)
    return refusal(lambda: decoded(text, header, **given)).message


def one(**members: Any) -> dict[str, Any]:
    """A request of one input, ``members`` of which differ; None leaves one out."""
    entry = {key: value for key, value in {**ENTRY, **members}.items() if value is not None}
    return {"inputs": [entry]}


BINARY = {"data": None, "parameters": {"binary_data_size": 24}}
REGION = {"shared_memory_region": "r", "shared_memory_byte_size": 24}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "one JSON object in UTF-8"),
        ("[]", "one JSON object in UTF-8"),
        ("\ufeff{}", "byte order mark"),
        ("{}", "inputs must be a list"),
        ('{"inputs":3}', "inputs must be a list"),
        ('{"inputs":[3]}', "inputs must be a list|an input must be an object"),
        ('{"inputs":[[]],"data":1}', "inputs must be a list"),
        ('{"inputs":[]}x', "follow the object"),
        ('{"inputs":[],"inputs":[]}', "twice"),
        ('{"inputs":[],"\\u0069nputs":[]}', "twice"),
        ('{"inputs":[]', "not JSON|closing brace"),
        ('{"id":"\xff', "not JSON"),
        (b'{"id":"\xff","inputs":[]}', "UTF-8"),
        ('{"inputs":[],"x":' + "[" * 40 + "]" * 40 + "}", "nested too deeply"),
        ({"inputs": [], "id": 3}, "id must be a string"),
        ({"inputs": [], "id": "x" * 1025}, "1024 characters"),
        ({"inputs": [], "parameters": []}, "parameters must be an object"),
        ({"inputs": [], "parameters": {"binary_data_output": 1}}, "true or false"),
        ({"inputs": [], "parameters": {"outputs": "loss"}}, "list of outputs"),
        ({"inputs": [], "outputs": {}}, "outputs must be a list"),
        ({"inputs": [], "outputs": [1]}, "output must be an object"),
        ({"inputs": [], "outputs": [{}]}, "must have a name"),
        ({"inputs": [], "outputs": [{"name": "loss"}, {"name": "loss"}]}, "twice"),
        ({"inputs": [], "outputs": [{"name": "losses"}]}, "unknown output 'losses'"),
        (
            {"inputs": [], "outputs": [{"name": "loss", "parameters": {"classification": 2}}]},
            "classification is not offered",
        ),
        (
            {"inputs": [], "outputs": [{"name": "loss", "parameters": {"binary_data": "yes"}}]},
            "binary_data must be true or false",
        ),
        (
            {
                "inputs": [],
                "outputs": [{"name": "loss", "parameters": {**REGION, "binary_data": True}}],
            },
            "either binary_data or shared_memory_region",
        ),
        ({"inputs": [{}] * 65}, "at most 64"),
        ({"inputs": [], **{str(index): 0 for index in range(65)}, "a\\": 0}, "more than 64"),
        ({"inputs": [ENTRY, ENTRY]}, "logits' is there twice"),
        (one(name=None), "must have a name"),
        (one(name="other"), "unknown tensor 'other'"),
        (one(datatype=None), "must be one of FP32"),
        (one(datatype="BOOL", data=[True]), "datatype 'BOOL': it must be one of FP32"),
        (one(name="labels", datatype="BOOL"), "datatype 'BOOL': it must be one of FP32"),
        ({"inputs": [{"data": [True] * 6, **LATE}]}, "'true' is neither"),
        ({"inputs": [{"data": [True] * 6, **LATE, "datatype": "FP64"}]}, "'true' is neither"),
        (
            one(name="weight", datatype="BOOL", data=[1, 0, 1, 0, 0, 2]),
            "BOOL must be true or false",
        ),
        (one(name="weight", datatype="FP32", data=[True] * 6), "'true' is neither"),
        (one(name="weight", datatype="BOOL", data=["true"] * 6), "'\"true\"' is neither"),
        (one(data=[0, None, 0, 0, 0, 0]), r"logits\[1\]: 'null' is .*KServe's client sends"),
        (one(parameters={"temperature": 2}), "logits: unknown parameter 'temperature': .*request"),
        (one(parameters={"binary_size": 24}), "unknown parameter 'binary_size'"),
        (
            {"inputs": [], "outputs": [{"name": "loss", "parameters": {"binary": True}}]},
            "output 'loss': unknown parameter 'binary'",
        ),
        (one(datatype="BYTES", data=["a"]), "datatype 'BYTES'"),
        (one(datatype=["FP32"]), "that is no string"),
        (one(shape=None), "shape must be a list"),
        (one(shape=[2, -3]), "an integer from 0"),
        (one(shape=[2, True]), "an integer from 0"),
        (one(shape=[2.0, 3]), "an integer from 0"),
        (one(shape=[1] * 33), "at most 32"),
        (one(shape=[2**32, 2**32]), "nor a flat list"),
        (one(data=None), "exactly one of data, .* not none"),
        (one(parameters={"binary_data_size": 24}), "not binary_data_size and data"),
        (one(parameters=REGION), "not shared_memory_region and data"),
        (one(data=[[0, 1], [2, 3], [4, 5]]), r"shape \[3, 2\] is neither of shape \[2, 3\]"),
        (one(data=[0] * 5), "flat list of 6 numbers"),
        (one(data=[[0, 1, 2], [3, 4]]), r"logits\[1\]: row has 2 elements, expected 3"),
        (one(data=["a"] * 6), "neither a JSON number"),
        (one(data={}), "neither a JSON number"),
        (one(datatype="INT8", data=[0, 0, 0, 0, 0, 128]), "128, and INT8 holds -128 to 127"),
        (one(datatype="UINT8", data=[0, 0, 0, 0, 0, -1]), "-1, and UINT8 holds 0 to 255"),
        (one(datatype="INT32", data=[0, 0, 0, 0, 0.0, 0.5]), r"logits\[5\]: 0.5 is not an integer"),
        (one(datatype="INT32", data=[[0, 0, 0], [1e0, "NaN", 0]]), r"logits\[1\]\[1\]: nan is not"),
        (one(datatype="FP16", data=[0, 0, 0, 0, 0, 1e6]), "more than float16 holds"),
        (one(**BINARY), "0 bytes follow the JSON, .* make 24; .*Inference-Header-Content-Length"),
        (one(data=None, parameters={"binary_data_size": 23}), "takes 24 bytes, but 23 bytes"),
        (one(data=None, parameters={"binary_data_size": -1}), "an integer from 0"),
        (one(data=None, parameters={"binary_data_size": "24"}), "an integer from 0"),
        (
            one(data=None, shape=[2**40, 2**40], parameters={"binary_data_size": 24}),
            r"takes more than 2\*\*63 bytes",
        ),
        (one(data=None, parameters={**REGION, "shared_memory_region": 1}), "must be a string"),
        (one(data=None, parameters={"shared_memory_region": "r"}), "byte_size must be an integer"),
        (
            one(data=None, parameters={**REGION, "shared_memory_offset": -1}),
            "offset must be an integer",
        ),
        (
            one(data=None, parameters={**REGION, "shared_memory_byte_size": 25}),
            "takes 24 bytes, but 25 bytes",
        ),
    ],
)
def test_malformed_requests_are_refused(body: Any, text: str) -> None:
    message = told(body, memory=Memory({"r": np.zeros(99, np.uint8)}))
    assert re.search(text, message), message


@pytest.mark.parametrize("change", [-1, 1, 100])
def test_the_bytes_behind_the_json_are_exactly_those_declared(change: int) -> None:
    body, header = binary({"logits": LOGITS})
    longer = body[:change] if change < 0 else body + bytes(change)
    assert f"{24 + change:,} bytes follow the JSON, but its inputs' binary_data_size make 24" in (
        told(longer, header)
    )


HEADER = "Inference-Header-Content-Length"


@pytest.mark.parametrize("rows", [2, 20000])
def test_a_wrong_header_length_is_named_whatever_it_breaks(rows: int) -> None:
    for tensors in ({"logits": np.zeros((rows, 3), np.float32)}, {"labels": np.full(rows, 0x20)}):
        body, header = binary(tensors)
        assert f"{HEADER} is" in told(body, len(body) + 1)
        wrong = {1, 2, 20, *range(header - 30, header), *range(header + 1, header + 16), len(body)}
        for length in wrong:
            assert f"{HEADER} says that the JSON takes {length:,} bytes" in told(body, length)
        assert f"binary tensors need the header {HEADER}" in told(body)


def test_a_mixed_request_names_a_wrong_header_length_too() -> None:
    weight = declared("weight", np.zeros(2000), data=[0.5] * 2000)
    labels = declared("labels", np.zeros(3, np.int8), parameters={"binary_data_size": 3})
    text = json.dumps({"inputs": [weight, labels]}).encode()
    for length in (*range(1, len(text), 97), *range(len(text) - 99, len(text)), len(text) + 1):
        assert f"{HEADER} says" in told(text + bytes(3), length)
    assert HEADER in told(text + bytes(3))


def test_the_header_is_not_blamed_for_what_json_says() -> None:
    body, header = binary({"logits": LOGITS}, outputs=[{"name": "losses"}])
    assert HEADER not in told(body, header)
    assert HEADER not in told('{"inputs":[{"name":"logits",}]}')


def test_tensors_are_no_larger_than_the_limit() -> None:
    few = Limits(decoded_bytes=20)
    body, header = binary({"logits": LOGITS})
    for sent, length in ((json.dumps(one()), None), (body, header)):
        with pytest.raises(TooLarge):
            decoded(sent, length, limits=few)
    # Nothing is there, but results would be sized by what is claimed.
    empty = one(shape=[2**40, 0], data=[])
    with pytest.raises(TooLarge):
        decoded(json.dumps(empty))
    two = {"inputs": [ENTRY, declared("labels", np.zeros(2), data=[0.0, 1.0])]}
    with pytest.raises(TooLarge):
        decoded(json.dumps(two), limits=Limits(decoded_bytes=30))
