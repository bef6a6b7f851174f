"""V2 requests and answers: what goes in comes out, and lies where the server counts on it."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import orjson
import pytest

from kernels import dtypes
from service.codecs import compression
from service.codecs.v2.model import Model
from tests.service.codecs.infers import (
    NAMES,
    Memory,
    asked,
    binary,
    declared,
    decoded,
    inference,
    parsed,
)
from tests.service.codecs.samples import Array, every_dtype, every_shape, refusal, same, sample


@every_dtype
@every_shape
def test_binary_tensors_are_views_of_the_body(row: dtypes.DType, shape: tuple[int, ...]) -> None:
    tensors = {"labels": np.arange(3, dtype=np.int8), "logits": sample(row, shape)}
    body, header = binary(tensors)
    memory = np.frombuffer(bytearray(body), np.uint8)
    made = inference(header)
    message = made.decode(memory.data, NAMES, made.limits)
    assert message.options == {}
    assert message.tensors.keys() == tensors.keys()
    for name, array in tensors.items():
        assert same(message.tensors[name], array)
        assert array.size == 0 or np.may_share_memory(message.tensors[name], memory)
    assert made.decoded_bytes(memory.data) == 0


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("late", [False, True], ids=["datatype-first", "data-first"])
@every_dtype
def test_json_tensors_have_the_type_that_they_say(
    row: dtypes.DType, nested: bool, late: bool
) -> None:
    values = np.array([[0, 1, 2], [3, 100, 5]])
    data = values.tolist() if nested else values.ravel().tolist()
    entry: dict[str, Any] = {"name": "logits", "datatype": row.v2, "shape": [2, 3]}
    entry = {"data": data, **entry} if late else {**entry, "data": data}
    array = decoded(json.dumps({"inputs": [entry]})).tensors["logits"]
    if row in dtypes.INTEGERS:
        assert same(array, values)
    else:
        assert array.dtype == row.numpy
        bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[row.size]
        exact = values.astype(np.float32)
        if row is dtypes.BFLOAT16:
            assert same(array.view(bits), (exact.view(np.uint32) >> 16).astype(np.uint16))
        else:
            assert same(array, values.astype(row.numpy))


@pytest.mark.parametrize("late", [False, True], ids=["datatype-first", "data-first"])
@pytest.mark.parametrize("row", dtypes.INTEGERS, ids=lambda row: row.name)
def test_integers_may_be_written_as_floats(row: dtypes.DType, late: bool) -> None:
    entry: dict[str, Any] = {"name": "labels", "datatype": row.v2, "shape": [3]}
    given = {"data": [1.0, 2, 1e2]}
    entry = {**given, **entry} if late else {**entry, **given}
    assert same(decoded(json.dumps({"inputs": [entry]})).tensors["labels"], np.array([1, 2, 100]))


def test_numbers_that_are_not_finite_may_stand_bare() -> None:
    entry = '{"name":"logits","datatype":"FP32","shape":[4],"data":[NaN,-Infinity,Infinity,1e1]}'
    array = decoded(f'{{"inputs":[{entry}]}}').tensors["logits"]
    np.testing.assert_array_equal(array, [np.nan, -np.inf, np.inf, 10])


def test_json_and_binary_inputs_may_be_mixed() -> None:
    logits = np.arange(6, dtype=np.float32).reshape(2, 3)
    inputs = [
        declared("labels", np.zeros(2, np.int32), data=[1, 2]),
        declared("logits", logits, parameters={"binary_data_size": 24}),
    ]
    text = json.dumps({"inputs": inputs}).encode()
    message = decoded(text + logits.tobytes(), len(text))
    assert message.tensors["labels"].tolist() == [1, 2]
    assert same(message.tensors["logits"], logits)


def test_the_largest_tensor_is_found_before_it_has_come() -> None:
    logits: Array = np.zeros((4, 5), np.float32)
    labels: Array = np.arange(4)
    for tensors, at, ready in (
        ({"logits": logits, "labels": labels}, 0, None),
        ({"labels": labels, "logits": logits}, 32, 32),
    ):
        body, header = binary(tensors)
        for prefix in (body[:header], body[: header + 1], body):
            made = inference(header)
            assert made.aligned_at(prefix) == header + at
            assert made.ready_at(memoryview(prefix)) == (None if ready is None else header + ready)
        made = inference(header)
        assert made.aligned_at(body[: header - 1]) is None
        assert made.ready_at(memoryview(body[: header - 1])) is None
    assert inference(None).aligned_at(body) is None
    assert inference(header, coding="gzip").aligned_at(body) is None
    broken = b"x" * header
    assert inference(header).aligned_at(broken) is None


def test_null_is_no_data() -> None:
    # What KServe's client sends beside a tensor without elements.
    empty = np.zeros((0, 3), np.float32)
    entry = declared("logits", empty, data=None, parameters={"binary_data_size": 0})
    labels = declared("labels", np.zeros(2, np.int32), parameters={"binary_data_size": 8})
    assert same(decoded(json.dumps({"inputs": [entry]})).tensors["logits"], empty)
    text = json.dumps({"inputs": [entry, {**labels, "data": None}]})
    message = decoded(text + "\0" * 8, len(text))
    assert same(message.tensors["logits"], empty)
    assert same(message.tensors["labels"], np.zeros(2, np.int32))


def test_what_is_null_is_not_there() -> None:
    body = {
        "id": None,
        "inputs": [declared("logits", np.zeros(1, np.float32), data=[1], parameters=None)],
        "outputs": [
            {"name": "loss", "parameters": None},
            {
                "name": "rank",
                "parameters": {
                    "binary_data": None,
                    "classification": None,
                    "shared_memory_region": None,
                    "shared_memory_offset": None,
                },
            },
        ],
        "parameters": {"binary_data_output": None, "outputs": None, "priority": None},
    }
    assert decoded(json.dumps(body)).options == {"outputs": ["loss", "rank"]}
    region = {
        "shared_memory_region": "r",
        "shared_memory_byte_size": 4,
        "shared_memory_offset": None,
        "binary_data_size": None,
    }
    shared = declared("logits", np.zeros(1, np.float32), data=None, parameters=region)
    memory = Memory({"r": np.zeros(8, np.uint8)})
    assert decoded(json.dumps({"inputs": [shared]}), memory=memory).tensors["logits"] == [0]


@pytest.mark.parametrize("late", [False, True], ids=["name-first", "data-first"])
def test_weights_may_be_boolean(late: bool) -> None:
    mask = np.array([True, False, True])
    for data in (mask.tolist(), [1, 0, 1], [True, 0, 1.0], [[True, False, True]]):
        entry = {"name": "weight", "datatype": "BOOL", "shape": list(np.shape(data))}
        entry = {"data": data, **entry} if late else {**entry, "data": data}
        read = decoded(json.dumps({"inputs": [entry]})).tensors["weight"]
        assert read.tolist() == np.array(data, float).tolist()
    body, header = binary({"weight": mask})
    assert same(decoded(body, header).tensors["weight"], mask)


def test_unknown_keys_and_parameters_of_the_protocol_are_ignored() -> None:
    body = json.dumps(
        {
            "model_name": "other",
            "id": "7",
            "inputs": [],
            "parameters": {
                "reduction": "sum",
                "label_smoothing": 0.1,
                "priority": 3,
                "timeout": 5,
                "sequence_id": 1,
                "sequence_start": True,
                "sequence_end": False,
                "headers": "x",
                "triton_enable_empty_final_response": True,
                "binary_data_output": True,
            },
            "extension": {"a": [1, {"b": None}]},
            "outputs": None,
        }
    )
    assert decoded(body).options == {"reduction": "sum", "label_smoothing": 0.1}


FOREIGN = {
    "content_type": "np",
    "headers": {"x-request-id": "7"},
    "priority": 1,
    "timeout": 9,
    "sequence_id": "a",
    "triton_enable_empty_final_response": False,
}


def test_parameters_for_other_servers_are_passed_over_at_every_level() -> None:
    entry = declared("logits", np.zeros(2, np.float32), data=[1, 2], parameters=FOREIGN)
    wanted = {"name": "loss", "parameters": {**FOREIGN, "binary_data": False}}
    body = {"inputs": [entry], "outputs": [wanted], "parameters": {**FOREIGN, "reduction": "sum"}}
    message = decoded(json.dumps(body))
    assert message.options == {"reduction": "sum", "outputs": ["loss"]}
    assert message.tensors["logits"].tolist() == [1, 2]


def test_the_outputs_of_the_request_are_the_option() -> None:
    body = json.dumps({"inputs": [], "outputs": [{"name": "rank"}, {"name": "loss"}]})
    assert decoded(body).options == {"outputs": ["rank", "loss"]}
    fixed = Model("softmax", "1", "logits", ("rank", "loss"), chooses=False)
    assert decoded(body, model=fixed).options == {}


ARRAYS: dict[str, Array] = {
    "loss": np.array(0.5, np.float32),
    "per_element": np.array([[1, np.nan, np.inf], [-np.inf, 0, 2]], np.float32),
    "rank": np.array([-1, 7]),
}


@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize("own", [None, False, True])
def test_outputs_are_sent_as_asked(default: bool, own: bool | None) -> None:
    parameters = {} if own is None else {"binary_data": own}
    answer = asked(
        {
            "id": 'a"\n\x00é\ud800',
            "outputs": [
                {"name": "rank"},
                {"name": "per_element", "parameters": parameters},
                {"name": "loss", "parameters": {"binary_data": False}},
            ],
            "parameters": {"binary_data_output": default},
        },
        ARRAYS,
    )
    text, arrays = parsed(answer)
    assert text["id"] == 'a"\n\x00é\ud800'
    assert (text["model_name"], text["model_version"]) == ("cross_entropy", "1")
    assert list(arrays) == ["rank", "per_element", "loss"]
    assert arrays["loss"].shape == (1,)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array.reshape(array.shape or 1))
    is_binary = default or bool(own)
    assert (answer.media_type == "application/octet-stream") is is_binary
    assert ("data" in text["outputs"][1]) is not (default if own is None else own)
    assert bytes(answer.content).isascii() or is_binary


def test_without_names_all_outputs_come_and_without_an_id_none() -> None:
    text, arrays = parsed(asked({}, ARRAYS))
    assert list(arrays) == list(ARRAYS)
    assert text.keys() == {"model_name", "model_version", "outputs"}
    answer = asked({"parameters": {"binary_data_output": True}}, ARRAYS)
    assert list(parsed(answer)[1]) == list(ARRAYS)
    # The first tensor is on a cache line of its own.
    assert int(answer.headers["Inference-Header-Content-Length"]) % 64 == 0


@pytest.mark.parametrize("name", [*ARRAYS, "empty"])
def test_an_output_of_any_shape_is_flat_json(name: str) -> None:
    array = {**ARRAYS, "empty": np.zeros((2, 0, 3), np.float32)}[name]
    text, _ = parsed(asked({}, {"loss": array}))
    data = text["outputs"][0]["data"]
    assert np.ndim(data) == 1
    np.testing.assert_array_equal(np.array(data, array.dtype), array.ravel())


def test_numbers_that_json_cannot_write_are_strings() -> None:
    content = asked({}, {"per_element": ARRAYS["per_element"]}).content
    # A parser that knows no other JSON, as KServe's client has.
    [output] = orjson.loads(content)["outputs"]
    assert output["data"] == [1.0, "NaN", "Infinity", "-Infinity", 0.0, 2.0]


def test_numbers_in_json_are_counted_without_binary_outputs() -> None:
    arrays: dict[str, Array] = {"loss": np.zeros(600), "per_element": np.zeros(401)}
    outputs = [{"name": "loss", "parameters": {"binary_data": True}}, {"name": "per_element"}]
    for members, count in (({}, 1001), ({"outputs": outputs}, 401)):
        made = inference()
        made.decode(memoryview(json.dumps({"inputs": [], **members}).encode()), NAMES, made.limits)
        assert made.text_numbers(arrays) == count
    assert parsed(asked({"outputs": outputs}, arrays))[1].keys() == arrays.keys()


@pytest.mark.parametrize("coding", compression.CODINGS)
def test_bodies_and_answers_may_be_compressed(coding: str) -> None:
    library: Any = {"gzip": gzip, "deflate": zlib}[coding]
    logits = np.arange(600, dtype=np.float32)
    body, header = binary({"logits": logits}, parameters={"binary_data_output": True})
    coded = memoryview(library.compress(body))
    made = inference(header, coding=coding, reply_coding=coding)
    assert made.decoded_bytes(coded) >= len(body)
    assert same(made.decode(coded, NAMES, made.limits).tensors["logits"], logits)
    answer = made.encode({"loss": logits})
    assert answer.headers["Content-Encoding"] == coding
    plain = inference(header)
    plain.decode(memoryview(body), NAMES, plain.limits)
    # What is said of lengths is said of the answer before its coding.
    uncoded = plain.encode({"loss": logits})
    assert library.decompress(answer.content) == b"".join([uncoded.content, *uncoded.more])
    assert answer.headers == {**uncoded.headers, "Content-Encoding": coding}
    assert "Content-Encoding" not in made.encode({"loss": logits[:3]}).headers


def test_shared_memory_is_read_where_it_lies_but_labels_are_not() -> None:
    logits, labels = np.arange(6, dtype=np.float32), np.arange(2)
    whole = np.concatenate([logits.view(np.uint8), labels.view(np.uint8)])
    places = {"logits": (0, 24), "labels": (24, 16)}
    inputs = [
        declared(
            name,
            array,
            parameters={
                "shared_memory_region": "r",
                "shared_memory_offset": places[name][0],
                "shared_memory_byte_size": places[name][1],
            },
        )
        for name, array in (("logits", logits), ("labels", labels))
    ]
    body = json.dumps({"inputs": inputs}).encode()
    made = inference(memory=Memory({"r": whole}))
    assert made.decoded_bytes(memoryview(body)) == labels.nbytes
    message = made.decode(memoryview(body), NAMES, made.limits)
    assert np.shares_memory(message.tensors["logits"], whole)
    assert not np.shares_memory(message.tensors["labels"], whole)
    assert same(message.tensors["labels"], labels)


def test_outputs_are_written_into_shared_memory() -> None:
    whole = np.zeros(32, np.uint8)
    memory = Memory({"r": whole})

    def outputs(size: int) -> dict[str, Any]:
        parameters = {
            "shared_memory_region": "r",
            "shared_memory_offset": 8,
            "shared_memory_byte_size": size,
        }
        # Binary by default is no contradiction.
        return {
            "outputs": [{"name": "per_element", "parameters": parameters}],
            "parameters": {"binary_data_output": True},
        }

    array = np.array([1, 2, 3], np.float32)
    text, arrays = parsed(asked(outputs(16), {"per_element": array}, memory=memory))
    assert arrays == {}
    assert text["outputs"] == [{"name": "per_element", "datatype": "FP32", "shape": [3]}]
    assert same(whole[8:20].view(np.float32), array)
    assert not whole[:8].any()
    assert not whole[20:].any()
    assert memory.checks == 1
    error = refusal(lambda: asked(outputs(11), {"per_element": array}, memory=memory))
    assert "12 bytes are more than the 11" in error.message


def test_json_is_paid_for_before_it_is_read() -> None:
    made = inference()
    entry = declared("logits", np.zeros(3, np.float32), data=[1, 2, 3])
    assert made.decoded_bytes(memoryview(json.dumps({"inputs": [entry]}).encode())) == 12
    numbers = np.random.default_rng(1).standard_normal(40_000).tolist()
    many = {"data": numbers, **declared("logits", np.zeros(40_000))}
    body = json.dumps({"inputs": [many]}).encode()
    assert made.decoded_bytes(memoryview(body)) >= 40_000 * 16
    assert inference(coding="gzip").decoded_bytes(memoryview(gzip.compress(body))) >= (
        40_000 * 16 + len(body)
    )


def test_what_takes_long_is_not_done_at_once() -> None:
    logits = np.zeros(10**6, np.float32)
    body, header = binary({"logits": logits})
    assert inference(header).at_once(memoryview(body))
    assert not inference(header, coding="gzip").at_once(memoryview(body))
    text = json.dumps({"inputs": [declared("logits", logits[:40_000], data=[0] * 40_000)]})
    assert not inference().at_once(memoryview(text.encode()))
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 8 * 10**6}
    for name, array, quick in (("logits", np.zeros(10**6), True), ("labels", logits, False)):
        datatype = "FP64" if quick else "INT64"
        entry = {"name": name, "datatype": datatype, "shape": [array.size], "parameters": place}
        body = json.dumps({"inputs": [entry]}).encode()
        assert inference().at_once(memoryview(body)) is quick
