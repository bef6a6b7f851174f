"""Likeliest classes, focal losses and binary cross-entropies over every format."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import kernels
from service.routes.v2 import models
from tests.service import wire
from tests.service.cases import FORMATS, LABELS, worked
from tests.service.codecs.infers import binary
from tests.service.conftest import Client

HEADER = "Inference-Header-Content-Length"
CHOSEN = np.array([4, 0])
OUTPUTS = ("max_logit", "confidence", "margin", "top_log_probs", "top_classes", "chosen_log_probs")
QUERY = f"top_k=3&focal=1.5&outputs=loss,{','.join(OUTPUTS)}"


def expected(tensors: dict[str, Any]) -> dict[str, Any]:
    names = ("loss", *OUTPUTS)
    return dict(kernels.cross_entropy(**tensors, top_k=3, focal=1.5, outputs=names))


@pytest.mark.parametrize("each", [False, True], ids=["chosen for all", "chosen for each"])
@pytest.mark.parametrize("sent", FORMATS)
def test_every_format_has_the_bits_of_the_kernels(client: Client, sent: str, each: bool) -> None:
    tensors: dict[str, Any] = worked()
    tensors["chosen"] = np.stack([LABELS % 5, 4 - LABELS % 5], -1) if each else CHOSEN
    body = wire.BODIES[sent](tensors)
    path, kind = f"/v1/cross_entropy?{QUERY}", wire.MEDIA_TYPES[sent]
    answered = wire.tensors_of(client.send(path, body, kind, accept=wire.NPZ))
    for name, array in expected(tensors).items():
        assert answered[name].dtype == array.dtype
        np.testing.assert_array_equal(answered[name], array)
    written = wire.tensors_of(client.send(path, body, kind, accept=wire.JSON))
    for name, array in answered.items():
        np.testing.assert_array_equal(written[name].astype(array.dtype), array)


def test_v2_has_the_bits_of_v1(client: Client) -> None:
    tensors: dict[str, Any] = worked() | {"chosen": CHOSEN}
    parameters = {"binary_data_output": True, "top_k": 3, "focal": 1.5}
    named = [{"name": name} for name in OUTPUTS]
    body, length = binary(tensors, parameters=parameters, outputs=named)
    answer = client.post(
        "/v2/models/cross_entropy/infer", content=body, headers={HEADER: str(length)}
    )
    assert answer.status_code == 200, answer.text
    at = int(answer.headers[HEADER])
    want = expected(tensors)
    for entry in json.loads(answer.content[:at])["outputs"]:
        array, size = want[entry["name"]], entry["parameters"]["binary_data_size"]
        assert entry["shape"] == list(array.shape)
        assert answer.content[at : at + size] == array.tobytes()
        at += size


def test_v2_says_what_there_is() -> None:
    described = models.metadata("cross_entropy")
    outputs = {entry["name"]: entry for entry in described["outputs"]}
    assert outputs["top_classes"]["datatype"] == "INT64"
    assert outputs["margin"]["datatype"] == "FP32"
    inputs = {entry["name"]: entry["datatype"] for entry in described["inputs"]}
    assert inputs["chosen"] == "INT64"
    names = {entry["name"] for entry in models.metadata("binary_cross_entropy")["inputs"]}
    assert names == {"logits", "labels", "weight", "pos_weight", "sample_weight"}


@pytest.mark.parametrize(
    ("path", "changes", "field", "text"),
    [
        ("cross_entropy?top_k=6&outputs=top_classes", {}, "top_k", "from 1 to 5"),
        ("cross_entropy?top_k=129&outputs=top_classes", {}, "top_k", "less than or equal to 128"),
        ("cross_entropy?top_k=0", {}, "top_k", "greater than or equal to 1"),
        ("cross_entropy?outputs=top_log_probs", {}, "top_k", "needs top_k"),
        ("cross_entropy?outputs=chosen_log_probs", {}, "chosen", "needs chosen"),
        ("cross_entropy", {"chosen": np.array([1, 5])}, "chosen", "chosen[1] is 5"),
        ("cross_entropy", {"chosen": np.zeros((2, 2), int)}, "chosen", "(K)"),
        ("cross_entropy?focal=-1", {}, "focal", "greater than or equal to 0"),
        ("binary_cross_entropy", {}, "labels", "shape of the logits"),
        ("nll_loss?top_k=2", {}, "top_k", "unknown option"),
    ],
)
@pytest.mark.parametrize("sent", FORMATS)
def test_bad_input_is_named(
    client: Client, sent: str, path: str, changes: dict[str, Any], field: str, text: str
) -> None:
    body = wire.BODIES[sent](worked() | changes)
    problem = wire.problem_of(client.send(f"/v1/{path}", body, wire.MEDIA_TYPES[sent]), 422)
    assert problem["field"] == field
    assert text in problem["detail"]


@pytest.mark.parametrize("sent", FORMATS)
def test_chosen_classes_are_integers(client: Client, sent: str) -> None:
    """In JSON a fraction among integers is malformed, as it is among labels."""
    body = wire.BODIES[sent](worked() | {"chosen": np.array([0.5])})
    status, text = (400, "0.5 is not an integer") if sent == "json" else (422, "must be integers")
    media_type = wire.MEDIA_TYPES[sent]
    problem = wire.problem_of(client.send("/v1/cross_entropy", body, media_type), status)
    assert "chosen" in problem["detail"]
    assert text in problem["detail"]


@pytest.mark.parametrize("sent", FORMATS)
def test_binary_labels_may_be_soft_or_left_out(client: Client, sent: str) -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (7, 9)).astype(np.float32)
    hard = rng.integers(-1, 2, (7, 9))
    soft = np.where(hard < 0, -1, rng.random((7, 9))).astype(np.float32)
    outputs = ("loss", "per_element", "gradient", "count", "weight_sum", "loss_sum")
    path = f"/v1/binary_cross_entropy?ignore_index=-1&outputs={','.join(outputs)}"
    for labels in (hard, hard.astype(np.int8), soft):
        tensors = {"logits": logits, "labels": labels, "sample_weight": rng.random((7, 1))}
        tensors["sample_weight"] = tensors["sample_weight"].astype(np.float32)
        body = wire.BODIES[sent](tensors)
        answered = wire.tensors_of(client.send(path, body, wire.MEDIA_TYPES[sent], accept=wire.NPZ))
        given: dict[str, Any] = {**tensors, "ignore_index": -1, "outputs": outputs}
        for name, array in kernels.binary_cross_entropy(**given).items():
            np.testing.assert_array_equal(answered[name], array)


def test_a_binary_label_out_of_range_is_named_with_its_position(client: Client) -> None:
    body = b'{"logits": [[0, 1], [2, 3]], "labels": [[0, 1], [2, 0]]}'
    problem = wire.problem_of(client.send("/v1/binary_cross_entropy", body, wire.JSON), 422)
    assert (problem["field"], problem["position"]) == ("labels", [1, 0])
    assert "it must be 0 or 1" in problem["detail"]
