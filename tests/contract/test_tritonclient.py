"""NVIDIA's blocking client, unmodified: every call of it that has a meaning here."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.contract.tensors import (
    BESIDE,
    FLOATS,
    INTEGERS,
    LABELS,
    LOGITS,
    MODELS,
    NEEDED,
    OPTIONS,
    Array,
    asking,
    expected,
    given,
    same,
)


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    with triton.InferenceServerClient(address, network_timeout=120) as made:
        yield made
    # Its greenlets hold sockets that only the collector closes.
    gc.collect()


def refused(call: Any, status: int, text: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        call()
    assert caught.value.status() == str(status)
    assert text in caught.value.message()


def test_health(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    for name in MODELS:
        assert client.is_model_ready(name)
        assert client.is_model_ready(name, "1")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("softmax", "2")


def test_the_server_describes_itself(client: Any) -> None:
    metadata = client.get_server_metadata()
    assert metadata["name"] == "lossd"
    assert "binary_tensor_data" in metadata["extensions"]
    assert "system_shared_memory" in metadata["extensions"]


@pytest.mark.parametrize("name", MODELS)
def test_models_are_described(client: Any, name: str) -> None:
    for version in ("", "1"):
        metadata = client.get_model_metadata(name, version)
        assert (metadata["name"], metadata["versions"]) == (name, ["1"])
        config = client.get_model_config(name, version)
        for kind, configured in (("inputs", "input"), ("outputs", "output")):
            assert [
                (tensor["name"], "TYPE_" + tensor["datatype"], tensor["shape"])
                for tensor in metadata[kind]
            ] == [
                (tensor["name"], tensor["data_type"], tensor["dims"])
                for tensor in config[configured]
            ]
        needed = [tensor["name"] for tensor in config["input"] if not tensor["optional"]]
        assert needed == NEEDED.get(name, list(given(name)))
        # Everything that is described can be asked for, and has the type that it is said to have.
        outputs = [triton.InferRequestedOutput(tensor["name"]) for tensor in metadata["outputs"]]
        inputs = asking(triton, given(name) | BESIDE.get(name, {}))
        result = client.infer(name, inputs, outputs=outputs, parameters=OPTIONS.get(name))
        for tensor in metadata["outputs"]:
            output = result.get_output(tensor["name"])
            assert output["datatype"] == tensor["datatype"]
            assert len(output["shape"]) == len(tensor["shape"])


def test_the_repository(client: Any) -> None:
    ready = {"version": "1", "state": "READY", "reason": ""}
    assert client.get_model_repository_index() == [{"name": name, **ready} for name in MODELS]
    refused(lambda: client.load_model("softmax"), 501, "cannot be loaded")
    refused(lambda: client.unload_model("softmax"), 501, "cannot be loaded")


def test_statistics_count_requests_and_rows(client: Any) -> None:
    def of(name: str) -> dict[str, Any]:
        [found] = client.get_inference_statistics(name)["model_stats"]
        assert found in client.get_inference_statistics(name, "1")["model_stats"]
        return dict(found)

    before = of("softmax")
    client.infer("softmax", asking(triton, given("softmax")))
    refused(lambda: client.infer("softmax", asking(triton, given("nll_loss"))), 422, "logits is")
    after = of("softmax")
    assert after["inference_count"] - before["inference_count"] == len(LOGITS)
    assert after["execution_count"] - before["execution_count"] == 1
    assert after["last_inference"] > before["last_inference"]
    for kind, more in (
        ("success", 1), ("fail", 1), ("queue", 1), ("compute_input", 1), ("compute_infer", 1),
        ("compute_output", 1), ("cache_hit", 0), ("cache_miss", 0),
    ):  # fmt: skip
        counts = (before["inference_stats"][kind], after["inference_stats"][kind])
        assert counts[1]["count"] - counts[0]["count"] == more
        assert (counts[1]["ns"] > counts[0]["ns"]) is bool(more)
    every = client.get_inference_statistics()["model_stats"]
    assert [found["name"] for found in every] == MODELS


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("name", MODELS)
def test_inference(client: Any, name: str, binary_in: bool, binary_out: bool | None) -> None:
    wanted = expected(name, given(name))
    outputs = None
    if binary_out is not None:
        outputs = [triton.InferRequestedOutput(key, binary_data=binary_out) for key in wanted]
    inputs = asking(triton, given(name), binary_in)
    result = client.infer(name, inputs, outputs=outputs, request_id="no. 7")
    response = result.get_response()
    assert response["id"] == "no. 7"
    assert (response["model_name"], response["model_version"]) == (name, "1")
    assert [output["name"] for output in response["outputs"]] == list(wanted)
    for key, array in wanted.items():
        assert same(result.as_numpy(key), array)
    again = client.infer(name, inputs, model_version="1", outputs=outputs)
    assert "id" not in again.get_response()
    assert same(again.as_numpy(key), array)


def test_options_are_parameters(client: Any) -> None:
    options: dict[str, Any] = {
        "reduction": "sum",
        "label_smoothing": 0.1,
        "ignore_index": int(LABELS[0]),
        "class_axis": 1,
        "temperature": 2,
    }
    tensors = given("cross_entropy") | {"weight": np.array([1, 2, 0.5, 1, 1], np.float32)}
    asked = ("rank", "loss", "gradient")
    result = client.infer(
        "cross_entropy",
        asking(triton, tensors),
        outputs=[triton.InferRequestedOutput(name) for name in asked],
        parameters=options,
        # What is about queues and sequences means nothing here, and harms nobody.
        priority=2,
        timeout=1_000_000,
        sequence_id=9,
        sequence_start=True,
    )
    for name, array in expected("cross_entropy", tensors, asked, **options).items():
        assert same(result.as_numpy(name), array)
    none = client.infer("cross_entropy", asking(triton, tensors), parameters={"reduction": "none"})
    assert none.as_numpy("loss").shape == LABELS.shape


@pytest.mark.parametrize("first", ["logits", "labels"])
def test_a_body_that_is_computed_with_while_it_comes(client: Any, first: str) -> None:
    """Logits that come last, and take more than a few megabytes."""
    logits = np.random.default_rng(5).normal(0, 3, (4000, 1000)).astype(np.float32)
    tensors: dict[str, Array] = {"logits": logits, "labels": np.arange(4000) % 1000}
    ordered = {first: tensors[first], **tensors}
    result = client.infer("cross_entropy", asking(triton, ordered))
    for key, array in expected("cross_entropy", tensors).items():
        assert same(result.as_numpy(key), array)


def as_client_has_it(array: Any, name: str) -> Any:
    return array.astype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@pytest.mark.parametrize("name", FLOATS)
def test_every_type_of_logits(client: Any, name: str) -> None:
    logits = as_client_has_it(LOGITS, name)
    tensors = {"logits": logits, "labels": LABELS}
    result = client.infer("cross_entropy", asking(triton, tensors))
    for key, array in expected("cross_entropy", tensors).items():
        assert same(result.as_numpy(key), array)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", INTEGERS)
def test_every_type_of_labels(client: Any, name: str, binary: bool) -> None:
    tensors = {"logits": LOGITS, "labels": LABELS.astype(name)}
    result = client.infer("cross_entropy", asking(triton, tensors, binary))
    for key, array in expected("cross_entropy", tensors).items():
        assert same(result.as_numpy(key), array)


def test_class_probabilities(client: Any) -> None:
    probabilities = np.asarray(expected("softmax", {"logits": -LOGITS})["probs"])
    tensors = {"logits": LOGITS, "labels": probabilities}
    result = client.infer("cross_entropy", asking(triton, tensors))
    for key, array in expected("cross_entropy", tensors).items():
        assert same(result.as_numpy(key), array)


@pytest.mark.parametrize("binary", [True, False])
def test_what_is_not_finite(client: Any, binary: bool) -> None:
    logits = LOGITS.copy()
    logits[0, 1], logits[1] = -np.inf, np.nan
    tensors = {"logits": logits, "labels": np.array([1, 0, 2, 3, 4, 0])}
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("loss", "per_element")
    ]
    result = client.infer("cross_entropy", asking(triton, tensors, binary), outputs=outputs)
    losses = result.as_numpy("per_element")
    assert losses[0] == np.inf
    assert np.isnan(losses[1])
    for key, array in expected("cross_entropy", tensors).items():
        # Text does not tell the sign of a NaN.
        told = result.as_numpy(key)
        assert same(told, array) or (not binary and np.array_equal(told, array, equal_nan=True))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("answer_coding", [None, "gzip", "deflate"])
def test_compression(
    client: Any, request_coding: str | None, answer_coding: str | None, binary: bool
) -> None:
    logits = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    result = client.infer(
        "softmax",
        asking(triton, {"logits": logits}, binary),
        outputs=[triton.InferRequestedOutput("probs", binary_data=binary)],
        request_compression_algorithm=request_coding,
        response_compression_algorithm=answer_coding,
    )
    assert same(result.as_numpy("probs"), expected("softmax", {"logits": logits})["probs"])


def test_requests_and_answers_made_by_hand(client: Any) -> None:
    """For who has an HTTP client of their own: the body from tritonclient, and back into it."""
    for coding in (None, "gzip", "deflate"):
        body, length = client.generate_request_body(asking(triton, given("softmax")))
        headers = {"Inference-Header-Content-Length": str(length)}
        if coding is not None:
            headers["Accept-Encoding"] = coding
        response = client._post("v2/models/softmax/infer", body, headers, None)
        result = client.parse_response_body(
            response.read(),
            header_length=response.get("Inference-Header-Content-Length"),
            content_encoding=response.get("Content-Encoding"),
        )
        assert same(result.as_numpy("probs"), expected("softmax", given("softmax"))["probs"])


def test_many_at_once(client: Any, address: str) -> None:
    with triton.InferenceServerClient(address, concurrency=8, network_timeout=120) as many:
        waiting = [many.async_infer("softmax", asking(triton, given("softmax"))) for _ in range(50)]
        wanted = expected("softmax", given("softmax"))["probs"]
        for request in waiting:
            assert same(request.get_result().as_numpy("probs"), wanted)
    gc.collect()


def test_errors_are_told(client: Any) -> None:
    def infer(tensors: dict[str, Any], model: str = "cross_entropy", **more: Any) -> Any:
        return lambda: client.infer(model, asking(triton, tensors), **more)

    tensors = given("cross_entropy")
    refused(infer(tensors, "other"), 404, "there is no model 'other': the models are cross_")
    refused(infer(tensors, model_version="2"), 404, "version 1")
    refused(infer({"logits": LOGITS}), 422, "labels is missing")
    refused(infer(tensors | {"labels": LABELS + 1}), 422, "labels")
    refused(infer(tensors, parameters={"reductoin": "sum"}), 422, "unknown option 'reductoin'")
    refused(infer(tensors, parameters={"label_smoothing": "x"}), 422, "label_smoothing")
    unknown = [triton.InferRequestedOutput("accuracy")]
    refused(infer(tensors, outputs=unknown), 400, "unknown output 'accuracy'")
    classes = [triton.InferRequestedOutput("per_element", class_count=2)]
    refused(infer(tensors, outputs=classes), 400, "classification is not offered")
    strings = triton.InferInput("logits", [1], "BYTES")
    strings.set_data_from_numpy(np.array([b"x"], object))
    refused(lambda: client.infer("softmax", [strings]), 400, "datatype 'BYTES'")
    booleans = triton.InferInput("labels", [1], "BOOL")
    booleans.set_data_from_numpy(np.array([True]))
    refused(lambda: client.infer("softmax", [booleans]), 400, "datatype 'BOOL'")
