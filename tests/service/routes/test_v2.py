"""V2 over HTTP, by hand: what the clients in ``tests.contract`` never do, or hide."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

import kernels
from kernels import accumulate, dtypes
from kernels.plan import TABLE, outputs_of
from service.app import create_app
from service.routes.v2 import description, models
from tests.service import wire
from tests.service.cases import ANSWERS, tensors_for
from tests.service.codecs.infers import binary, declared
from tests.service.conftest import Client, running

INFER = "/v2/models/softmax/infer"
LOSS = "/v2/models/cross_entropy/infer"
LOGITS = np.array([[0, 1, 2], [3, 4, 5]], np.float32)
BODY, LENGTH = binary({"logits": LOGITS})
HEADER = "Inference-Header-Content-Length"
TEXT = json.dumps({"inputs": [declared("logits", LOGITS, data=LOGITS.tolist())]}).encode()


def send(
    client: Client, body: bytes, headers: Mapping[str, str] | None = None, path: str = INFER
) -> httpx.Response:
    return client.post(path, content=body, headers=headers)


async def chunked(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def refused(response: httpx.Response, status: int, text: str) -> None:
    assert re.search(text, wire.problem_of(response, status)["error"]), response.text


@pytest.mark.parametrize("as_json", [False, True], ids=["binary", "JSON"])
def test_sequences_have_the_kernels_bits(client: Client, as_json: bool) -> None:
    rng = np.random.default_rng(1)
    tensors = {
        "labels": rng.integers(0, 5, (3, 6)),
        "mask": np.arange(18).reshape(3, 6) % 5 != 0,
        "segments": np.arange(18, dtype=np.int32).reshape(3, 6) % 6 // 2,
        "logits": rng.normal(0, 3, (3, 6, 5)).astype(np.float32),
    }
    options: dict[str, Any] = {"class_axis": -1, "shift": 1, "bytes": 40}
    names = [
        name for name in outputs_of("cross_entropy") if TABLE[name].requires in (None, "bytes")
    ]
    expected = kernels.cross_entropy(**tensors, **options, outputs=names)
    members = {
        "parameters": {**options, "binary_data_output": True},
        "outputs": [{"name": name} for name in names],
    }
    if as_json:
        inputs = [declared(name, array, data=array.tolist()) for name, array in tensors.items()]
        answer = client.post("/v2/models/cross_entropy/infer", json={"inputs": inputs, **members})
    else:
        body, length = binary(tensors, **members)
        path = "/v2/models/cross_entropy/infer"
        answer = send(client, body, {HEADER: str(length)}, path)
    assert answer.status_code == 200, answer.text
    at = int(answer.headers[HEADER])
    for entry in json.loads(answer.content[:at])["outputs"]:
        size, want = entry["parameters"]["binary_data_size"], expected[entry["name"]]
        assert entry["shape"] == list(want.shape or (1,))
        assert answer.content[at : at + size] == want.tobytes(), entry["name"]
        at += size


@pytest.mark.parametrize("name", models.MODELS)
def test_v2_gives_the_bits_of_v1(client: Client, name: str) -> None:
    path = f"/v1/{name}"
    tensors = tensors_for(path)
    body, length = binary(tensors, parameters={"binary_data_output": True})
    answer = send(client, body, {HEADER: str(length)}, f"/v2/models/{name}/infer")
    assert answer.status_code == 200, answer.text
    at = int(answer.headers[HEADER])
    entries = json.loads(answer.content[:at])["outputs"]
    # Sums to merge are in the default answer of /v1 alone; here they are asked for.
    assert {entry["name"] for entry in entries} == ANSWERS[path] - {*accumulate.SUMS}
    if accumulate.SUMS[0] in ANSWERS[path]:
        named = [{"name": each} for each in ANSWERS[path]]
        parameters = {"binary_data_output": True}
        body, length = binary(tensors, parameters=parameters, outputs=named)
        answer = send(client, body, {HEADER: str(length)}, f"/v2/models/{name}/infer")
        at = int(answer.headers[HEADER])
        entries = json.loads(answer.content[:at])["outputs"]
    v1 = wire.tensors_of(client.send(path, wire.safetensors_body(tensors), wire.SAFETENSORS))
    for entry in entries:
        size = entry["parameters"]["binary_data_size"]
        dtype = dtypes.BY_V2[entry["datatype"]].numpy
        array = np.frombuffer(answer.content[at : at + size], dtype).reshape(entry["shape"])
        assert array.tobytes() == v1[entry["name"]].tobytes()
        assert array.shape == (v1[entry["name"]].shape or (1,))
        at += size
    assert at == len(answer.content)
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("name", models.MODELS)
def test_the_examples_of_the_description_are_answered(client: Client, name: str) -> None:
    answer = client.post(f"/v2/models/{name}/infer", json=description.example(name))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert HEADER not in answer.headers
    assert answer.json()["id"] == "1"


@pytest.mark.parametrize("path", [INFER, "/v2/models/softmax/versions/1/infer"])
@pytest.mark.parametrize("media_type", ["application/json", "application/octet-stream", "x", None])
def test_the_content_type_says_nothing(client: Client, path: str, media_type: str | None) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    outputs = send(client, TEXT, headers, path).json()["outputs"]
    assert outputs[0]["shape"] == [2, 3]
    assert send(client, BODY, {**headers, HEADER: str(LENGTH)}, path).json()["outputs"] == outputs


@pytest.mark.parametrize(
    ("value", "status", "text"),
    [
        ("0", 400, "raw requests, whose body has no JSON, are not read"),
        ("-1", 400, "must be the number of bytes"),
        ("x", 400, "must be the number of bytes"),
        ("9" * 21, 400, "must be the number of bytes"),
        ("9" * 20, 400, "but the body has"),
        (str(len(BODY) + 1), 400, "but the body has"),
        (str(LENGTH - 1), 400, "not JSON|brace"),
    ],
)
def test_a_wrong_header_length_is_refused(
    client: Client, value: str, status: int, text: str
) -> None:
    refused(send(client, BODY, {HEADER: value}), status, text)


def test_there_is_one_header_length_at_most(client: Client) -> None:
    twice = [(HEADER, str(LENGTH)), (HEADER, str(LENGTH))]
    refused(client.post(INFER, content=BODY, headers=twice), 400, "must be the number of bytes")


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress", "deflate, br"])
def test_other_codings_are_not_read(client: Client, coding: str) -> None:
    refused(send(client, TEXT, {"content-encoding": coding}), 415, "or as gzip or deflate")


def test_codings_that_are_read(client: Client) -> None:
    for coding in ("gzip", "GZIP", "x-gzip", " , gzip,", "identity, gzip"):
        body = gzip.compress(TEXT)
        assert send(client, body, {"content-encoding": coding}).status_code == 200
    for coding in ("identity", "identity,identity", ","):
        assert send(client, TEXT, {"content-encoding": coding}).status_code == 200
    refused(send(client, TEXT, {"content-encoding": "gzip"}), 400, "not exactly one gzip stream")


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.000", None),
        ("gzip;q=.5", "gzip"),
        ("gzip;q=.0", None),
        (" , GZIP ; q = 1. ,", "gzip"),
        ("gzip;level=9", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, *;q=0", "gzip"),
        ("deflate;q=0, gzip, identity;q=.5", "gzip"),
        ("gzip;q=.5, identity", None),
        ("gzip;q=nonsense", None),
        ("identity", None),
        ("br", None),
        ("*", None),
        ("", None),
        # What HTTP libraries offer of themselves.
        ("gzip, deflate", None),
        ("gzip, deflate, br, zstd", None),
    ],
)
def test_answers_are_compressed_only_when_that_is_asked(
    client: Client, accepted: str, expected: str | None
) -> None:
    logits = np.zeros((1000, 3), np.float32)
    body, length = binary({"logits": logits})
    answer = send(client, body, {HEADER: str(length), "accept-encoding": accepted})
    assert answer.headers.get("content-encoding") == expected
    assert answer.json()["outputs"][0]["shape"] == [1000, 3]
    short = send(client, BODY, {HEADER: str(LENGTH), "accept-encoding": accepted})
    assert "content-encoding" not in short.headers


CROSS_ENTROPY = "/v2/models/cross_entropy/infer"
LABELS = declared("labels", np.zeros(2, np.int64), data=[0, 1])
TENSORS = [declared("logits", LOGITS, data=LOGITS.ravel().tolist()), LABELS]


def answered(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return {output["name"]: output["data"] for output in response.json()["outputs"]}


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_options_in_the_query_are_those_of_the_parameters(client: Client, version: str) -> None:
    path = f"/v2/models/cross_entropy{version}/infer"
    options = {"label_smoothing": 0.5, "reduction": "sum", "temperature": 2.5, "class_axis": -1}
    plain = answered(client.post(path, json={"inputs": TENSORS}))
    given = answered(client.post(path, json={"inputs": TENSORS, "parameters": options}))
    assert given != plain
    texts = {name: str(value) for name, value in options.items()}
    assert answered(client.post(path, json={"inputs": TENSORS}, params=texts)) == given
    half = {"label_smoothing": 0.5, "class_axis": -1}
    rest = "?reduction=sum&temperature=2.5"
    assert answered(client.post(path + rest, json={"inputs": TENSORS, "parameters": half})) == given
    # Null is no second one.
    body = {"inputs": TENSORS, "parameters": {**half, "reduction": None}}
    assert answered(client.post(path + rest, json=body)) == given


def test_outputs_in_the_query_are_those_of_the_request(client: Client) -> None:
    for query in ("outputs=rank,loss", "outputs=rank&outputs=loss"):
        response = client.post(f"{CROSS_ENTROPY}?{query}", json={"inputs": TENSORS})
        assert list(answered(response)) == ["rank", "loss"]
    body = {"inputs": TENSORS, "outputs": [{"name": "loss"}]}
    refused(client.post(f"{CROSS_ENTROPY}?outputs=rank", json=body), 422, "both in the query")


@pytest.mark.parametrize(
    ("path", "query", "text"),
    [
        (
            CROSS_ENTROPY,
            "nonsense=1",
            "unknown option 'nonsense': the options here are device, .*class_axis",
        ),
        (CROSS_ENTROPY, "priority=1", "unknown option 'priority'"),
        (CROSS_ENTROPY, "reduction=sum&reduction=sum", "twice in the query string"),
        (CROSS_ENTROPY, "label_smoothing=2", "label_smoothing"),
        (INFER, "outputs=probs", "unknown option 'outputs'"),
        (INFER, "reduction=sum", "unknown option 'reduction'"),
        ("/v1/cross_entropy", "nonsense=1", "unknown option 'nonsense'"),
        ("/v1/explain", "nonsense=1", "unknown option 'nonsense'"),
        ("/v1/explain", "softcap=1", "unknown option 'softcap'"),
        ("/v1/nll_loss", "temperature=2", "unknown option 'temperature'"),
        ("/v1/softmax", "nonsense", "unknown option 'nonsense'"),
    ],
)
def test_every_route_that_computes_knows_the_options_of_its_query(
    client: Client, path: str, query: str, text: str
) -> None:
    body = {"inputs": TENSORS} if "/v2" in path else {"logits": [[0, 1]], "labels": [0]}
    response = client.post(f"{path}?{query}", json=body)
    refused(response, 422, text)


def test_routes_without_options_pass_over_the_query(client: Client) -> None:
    for path in ("/healthz", "/readyz", "/v2", "/v2/health/live", "/v2/models/softmax"):
        assert client.get(f"{path}?nonsense=1").status_code == 200


def test_a_mask_of_booleans_weighs_samples(client: Client) -> None:
    mask = np.array([True, False])
    expected = answered(client.post(CROSS_ENTROPY, json={"inputs": TENSORS}))["per_element"][0]
    entry = declared("sample_weight", mask, data=mask.tolist())
    response = client.post(CROSS_ENTROPY, json={"inputs": [*TENSORS, entry]})
    assert answered(response)["loss"] == [expected]
    # Any other byte than 0 is true, as it is to C.
    tensors = {"logits": LOGITS, "labels": np.array([0, 1])}
    body, length = binary({**tensors, "sample_weight": np.array([255, 0], np.uint8).view(bool)})
    response = send(client, body, {HEADER: str(length)}, CROSS_ENTROPY)
    assert answered(response)["loss"] == [expected]


def test_paths_that_are_not_there(client: Client) -> None:
    for method, path, status in (
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/softmax/versions/2", 404),
        ("GET", "/v2/models/softmax/versions/2/ready", 404),
        ("GET", "/v2/models/softmax/versions/01/config", 404),
        ("GET", "/v2/models/%2e%2e/stats", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/explain/infer", 404),
        ("POST", "/v2/models/softmax/versions/2/infer", 404),
        ("GET", INFER, 405),
        ("GET", "/v2/logging", 404),
    ):
        wire.problem_of(client.request(method, path), status)


def test_the_server_says_what_it_has(client: Client) -> None:
    for path in ("/v2", "/v2/"):
        metadata = client.get(path).json()
        assert metadata["name"] == "lossd"
        assert metadata["extensions"] == [
            "binary_tensor_data",
            "parameters",
            "statistics",
            "model_configuration",
        ]
    assert client.get("/v2/models").json() == {"models": list(models.MODELS)}
    assert client.get("/v2/health/live").json() == {"live": True}
    # KServe's client reads "ready", the specification says "live".
    assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}


def test_before_it_is_ready_it_says_so() -> None:
    end = threading.Event()

    def warm() -> None:
        end.wait()

    with running(create_app(warm=warm)) as starting:
        assert starting.get("/v2/health/live").status_code == 200
        for path in ("/v2/health/ready", "/v2/models/softmax/ready"):
            wire.problem_of(starting.get(path), 503)
        wire.problem_of(send(starting, TEXT), 503)
        index = starting.post("/v2/repository/index", content=b"").json()
        assert {entry["state"] for entry in index} == {"UNAVAILABLE"}
        assert starting.post("/v2/repository/index", json={"ready": True}).json() == []
        assert starting.get("/v2/models/softmax").status_code == 200
        end.set()


def test_the_repository_index(client: Client) -> None:
    every = client.post("/v2/repository/index", content=b"").json()
    assert [entry["name"] for entry in every] == list(models.MODELS)
    for given in ({}, {"ready": True}, {"ready": False}, {"ready": None}):
        assert client.post("/v2/repository/index", json=given).json() == every
    for body in (b"[]", b"x", b'{"ready":1}', b'{"ready":true}x', b'{"a":1,"a":1}', b"\xff"):
        wire.problem_of(client.post("/v2/repository/index", content=body), 400)
    wire.problem_of(client.post("/v2/repository/index", content=bytes(1 << 15)), 413)
    pieces = chunked([b" " * 5000] * 5)
    wire.problem_of(client.post("/v2/repository/index", content=pieces), 413)


def test_shared_memory_is_off_by_default(client: Client) -> None:
    region = "/v2/systemsharedmemory/region/r"
    given = {"key": "/x", "byte_size": 8}
    refused(client.post(f"{region}/register", json=given), 501, "disabled")
    assert client.post(f"{region}/unregister").status_code == 200
    assert client.post("/v2/systemsharedmemory/unregister").status_code == 200
    assert client.get("/v2/systemsharedmemory/status").json() == []
    wire.problem_of(client.get(f"{region}/status"), 404)
    place = {"shared_memory_region": "r", "shared_memory_byte_size": LOGITS.nbytes}
    body = json.dumps({"inputs": [declared("logits", LOGITS, parameters=place)]}).encode()
    refused(send(client, body), 404, "no shared memory region 'r'")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "key must be there"),
        ({"key": 1, "byte_size": 8}, "key must be there"),
        ({"key": "x"}, "byte_size must be an integer"),
        ({"key": "x", "byte_size": -1}, "byte_size must be an integer"),
        ({"key": "x", "byte_size": True}, "byte_size must be an integer"),
        ({"key": "x", "byte_size": 1.5}, "byte_size must be an integer"),
        ({"key": "x", "byte_size": 8, "offset": "0"}, "offset must be an integer"),
        ({"key": "x", "byte_size": 2**63}, "byte_size must be an integer"),
        ({"key": "x", "byte_size": None, "offset": None}, "byte_size must be an integer"),
    ],
)
def test_a_registration_says_what_it_registers(
    client: Client, given: dict[str, Any], text: str
) -> None:
    refused(client.post("/v2/systemsharedmemory/region/r/register", json=given), 400, text)


def test_json_answers_have_their_limit(client: Client) -> None:
    limit = 4 * 2**20
    body, length = binary({"logits": np.zeros((limit // 4 + 1, 4), np.float32)})
    refused(send(client, body, {HEADER: str(length)}), 406, "ask for its outputs with binary_data")


def test_class_probabilities_are_checked_unless_that_is_turned_off(client: Client) -> None:
    tensors = {"logits": LOGITS, "labels": LOGITS * 2}
    body, length = binary(tensors)
    refused(send(client, body, {HEADER: str(length)}, LOSS), 422, r"labels\[0, :\] (has|sums to) ")
    body, length = binary(tensors, parameters={"check_probabilities": False})
    assert send(client, body, {HEADER: str(length)}, LOSS).status_code == 200


def test_what_would_fit_is_named(client: Client) -> None:
    logits = np.zeros((2, 3, 5), np.float32)
    body, length = binary({"logits": logits, "labels": np.zeros((2, 3), np.int64)})
    refused(send(client, body, {HEADER: str(length)}, LOSS), 422, "they fit with class_axis=-1")
    body, length = binary({"logits": logits, "target": np.zeros((2, 3), np.int64)})
    refused(send(client, body, {HEADER: str(length)}, LOSS), 400, "is it labels")
