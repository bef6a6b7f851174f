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
