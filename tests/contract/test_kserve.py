"""KServe's client as it speaks: what ``InferenceRESTClient`` of kserve 0.21.0 sends and reads.

It is not installed, since it brings 34 packages, gRPC's and Kubernetes' among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import numpy as np
import orjson
import pytest

from tests.contract.tensors import MODELS, Array, expected, given, same
from tests.service.codecs.infers import binary, declared

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def http(server: httpx.URL) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=120, trust_env=False) as made:
        yield made


def outputs_of(response: httpx.Response) -> dict[str, Array]:
    """As ``InferResponse.from_bytes`` reads it."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get("inference-header-content-length", len(response.content)))
    parsed = orjson.loads(response.content[:length])
    assert parsed["id"] == "4c1f9cd6"
    assert parsed["model_name"]
    found, at = {}, length
    for output in parsed["outputs"]:
        assert output["datatype"] == "FP32"
        if "data" in output:
            flat = np.array(output["data"], np.float32)
        else:
            size = output["parameters"]["binary_data_size"]
            flat = np.frombuffer(response.content[at : at + size], np.float32)
            at += size
        found[output["name"]] = flat.reshape(output["shape"])
    return found


def test_readiness(http: httpx.Client) -> None:
    assert http.get("/v2/health/ready").json().get("ready") is True
    assert http.get("/v2/health/live").json().get("live") is True
    for name in MODELS:
        assert http.get(f"/v2/models/{name}/ready").is_success
    assert not http.get("/v2/models/other/ready").is_success


@pytest.mark.parametrize("name", MODELS)
def test_inference_in_json(http: httpx.Client, name: str) -> None:
    body: dict[str, Any] = {
        "id": "4c1f9cd6",
        "model_name": name,
        "inputs": [
            declared(key, array, data=array.ravel().tolist()) for key, array in given(name).items()
        ],
    }
    response = http.post(f"/v2/models/{name}/infer", content=orjson.dumps(body), headers=JSON)
    for key, array in expected(name, given(name)).items():
        assert same(outputs_of(response)[key], array)


@pytest.mark.parametrize("name", MODELS)
def test_inference_in_binary(http: httpx.Client, name: str) -> None:
    parameters = {"binary_data_output": True}
    body, length = binary(given(name), id="4c1f9cd6", model_name=name, parameters=parameters)
    headers = {
        "inference-header-content-length": str(length),
        "content-type": "application/octet-stream",
    }
    response = http.post(f"/v2/models/{name}/infer", content=body, headers=headers)
    for key, array in expected(name, given(name)).items():
        assert same(outputs_of(response)[key], array)


def sent(name: str, tensors: dict[str, Array], *, in_binary: bool) -> tuple[bytes, dict[str, str]]:
    """Body as ``InferRequest.to_rest`` makes it: null for tensors without bytes, and infinities."""
    if in_binary and any(array.nbytes for array in tensors.values()):
        body, length = binary(tensors, id="4c1f9cd6", model_name=name)
        headers = {"inference-header-content-length": str(length)}
        return body, headers | {"content-type": "application/octet-stream"}
    inputs = [
        declared(key, array, data=None, parameters={"binary_data_size": array.nbytes})
        if in_binary
        else declared(key, array, data=[value.item() for value in array.ravel()])
        for key, array in tensors.items()
    ]
    return orjson.dumps({"id": "4c1f9cd6", "model_name": name, "inputs": inputs}), JSON


@pytest.mark.parametrize("in_binary", [True, False])
def test_an_empty_batch_and_what_is_not_finite(http: httpx.Client, in_binary: bool) -> None:
    name, tensors = "cross_entropy", given("cross_entropy")
    ignored = {**tensors, "labels": np.full_like(tensors["labels"], -100)}
    for asked in ({key: array[:0] for key, array in tensors.items()}, ignored):
        body, headers = sent(name, asked, in_binary=in_binary)
        found = outputs_of(http.post(f"/v2/models/{name}/infer", content=body, headers=headers))
        for key, array in expected(name, asked).items():
            assert same(found[key], array)
        assert np.isnan(found["loss"])


@pytest.mark.parametrize("in_binary", [True, False])
def test_masked_logits(http: httpx.Client, in_binary: bool) -> None:
    masked = given("cross_entropy")
    masked["logits"] = np.where(masked["logits"] < 0, -np.inf, masked["logits"]).astype(np.float32)
    body, headers = sent("cross_entropy", masked, in_binary=in_binary)
    response = http.post("/v2/models/cross_entropy/infer", content=body, headers=headers)
    if in_binary:
        for key, array in expected("cross_entropy", masked).items():
            assert same(outputs_of(response)[key], array)
    else:
        assert response.status_code == 400
        assert "'null' is neither a JSON number" in response.json()["error"]
        assert "or as binary data, which KServe's client sends" in response.json()["error"]
