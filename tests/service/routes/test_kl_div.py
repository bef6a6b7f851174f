"""Divergences over HTTP: every format and V2 with the kernels' bits, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import dtypes
from kernels.plan import outputs_of
from tests import oracle, zoo
from tests.service import wire
from tests.service.cases import FORMATS
from tests.service.codecs.infers import binary, declared
from tests.service.conftest import Client

RANDOM = np.random.default_rng(21)
STUDENT, TEACHER = RANDOM.normal(0, 3, (2, 3, 7, 11)).astype(np.float32)
LOG_PROBS = oracle.log_softmax(TEACHER, -1).astype(np.float32)
LABELS = RANDOM.integers(0, 11, (3, 7))
CLASSES = np.ascontiguousarray(np.argsort(-TEACHER, -1)[..., :4])
CLASSES[0, 0, 2:] = -1
OF_POSITIONS: dict[str, wire.Array] = {
    "labels": LABELS,
    "mask": RANDOM.random((3, 7)) < 0.8,
    "weight": RANDOM.uniform(0, 2, (3, 7)).astype(np.float32),
}
TEACHERS: dict[str, dict[str, wire.Array]] = {
    "logits": {"target_logits": TEACHER},
    "log-probabilities": {"target_log_probs": LOG_PROBS},
    "sparse": {
        "target_classes": CLASSES,
        "target_top_log_probs": np.take_along_axis(LOG_PROBS, np.maximum(CLASSES, 0), -1),
    },
}
OPTIONS: dict[str, Any] = {"class_axis": -1, "direction": "jsd", "beta": 0.25, "shift": 1}
OUTPUTS = outputs_of("kl_div")
QUERY = "&".join(f"{name}={value}" for name, value in OPTIONS.items())
HEADER = "Inference-Header-Content-Length"


def tensors_of(teacher: str) -> dict[str, wire.Array]:
    return {**TEACHERS[teacher], **OF_POSITIONS, "logits": STUDENT}


@pytest.mark.parametrize("teacher", TEACHERS)
def test_every_format_has_the_bits_of_the_kernels(client: Client, teacher: str) -> None:
    tensors: dict[str, Any] = tensors_of(teacher)
    want = kernels.kl_div(**tensors, **OPTIONS, outputs=OUTPUTS)
    for sent in FORMATS:
        path = f"/v1/kl_div?{QUERY}&outputs={','.join(OUTPUTS)}"
        body = wire.BODIES[sent](tensors)
        response = client.send(path, body, wire.MEDIA_TYPES[sent], accept=wire.NPZ)
        got = wire.tensors_of(response)
        assert list(got) == list(OUTPUTS)
        for name, array in want.items():
            assert got[name].dtype == array.dtype
            assert got[name].tobytes() == array.tobytes(), (sent, name)
    asked = [{"name": name, "parameters": {"binary_data": True}} for name in OUTPUTS]
    body, length = binary(tensors, parameters=OPTIONS, outputs=asked)
    headers = {HEADER: str(length)}
    answer = client.post("/v2/models/kl_div/infer", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    at = int(answer.headers[HEADER])
    for entry in json.loads(answer.content[:at])["outputs"]:
        size = entry["parameters"]["binary_data_size"]
        assert answer.content[at : at + size] == want[entry["name"]].tobytes(), entry["name"]
        at += size


def test_v2_in_json(client: Client) -> None:
    tensors = tensors_of("sparse")
    inputs = [declared(name, array, data=array.tolist()) for name, array in tensors.items()]
    answer = client.post("/v2/models/kl_div/infer", json={"inputs": inputs, "parameters": OPTIONS})
    assert answer.status_code == 200, answer.text
    arguments: dict[str, Any] = tensors
    want = kernels.kl_div(**arguments, **OPTIONS, outputs=("loss", "per_element"))
    for entry in answer.json()["outputs"]:
        got = np.array(entry["data"], np.float32)
        np.testing.assert_array_equal(got, want[entry["name"]].reshape(-1))


@pytest.mark.parametrize("dtype", [dtypes.FLOAT64, dtypes.BFLOAT16], ids=lambda row: row.name)
def test_other_types(client: Client, dtype: dtypes.DType) -> None:
    tensors: dict[str, Any] = {
        "target_logits": zoo.cast(TEACHER, dtype),
        "logits": zoo.cast(STUDENT, dtype),
    }
    want = kernels.kl_div(**tensors, class_axis=-1, reduction="none")
    body = wire.safetensors_body(tensors)
    path = "/v1/kl_div?class_axis=-1&reduction=none&outputs=loss"
    got = wire.tensors_of(client.send(path, body, wire.SAFETENSORS))["loss"]
    assert got.tobytes() == want.tobytes()


# Changes of a request with a sparse teacher; status, field, position and words of the problem.
REFUSED: dict[str, tuple[dict[str, Any], str, list[int] | None, str]] = {
    "two teachers": (
        {"target_logits": TEACHER.tolist()},
        "target_logits",
        None,
        "takes one teacher",
    ),
    "a class out of range": (
        {"target_classes": np.full((3, 7, 4), 11).tolist()},
        "target_classes",
        [0, 0, 0],
        "is 11; with 11 classes it must be from 0 to 10",
    ),
    "a repeated class": (
        {"target_classes": np.zeros((3, 7, 4), int).tolist()},
        "target_classes",
        [0, 0, 1],
        "may be there once",
    ),
    "a mass above 1": (
        {"target_top_log_probs": np.zeros((3, 7, 4)).tolist()},
        "target_top_log_probs",
        [0, 0],
        "sum to at most 1",
    ),
    "a mask of another shape": ({"mask": [1, 0]}, "mask", None, "has shape (2,)"),
    "a shift beyond the length": ({"shift": 8}, "shift", None, "from -7 to 7"),
    "beta": ({"beta": 1.0}, "beta", None, "less than 1"),
    "a tail": ({"tail": "cut"}, "tail", None, "'bucket', 'ignore' or 'renormalize'"),
    "an output of the label": (
        {"labels": None, "outputs": ["delta_p"]},
        "labels",
        None,
        "no labels",
    ),
    "the other weight": (
        {"sample_weight": [1.0]},
        "sample_weight",
        None,
        "kl_div has no use for sample_weight",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(client: Client, case: str) -> None:
    change, field, position, words = REFUSED[case]
    tensors = {name: array.tolist() for name, array in tensors_of("sparse").items()}
    answer = client.post("/v1/kl_div", json={**tensors, "class_axis": -1, **change})
    problem = wire.problem_of(answer, 422)
    assert problem["field"] == field
    assert words in problem["detail"]
    if position is not None:
        assert problem["position"] == position


def test_names_of_other_libraries_are_understood(client: Client) -> None:
    answer = client.post(
        "/v1/kl_div", json={"logits": [[1, 2]], "teacher_logits": [[2, 1]], "reduction": "sum"}
    )
    assert "is it target_logits?" in wire.problem_of(answer, 422)["detail"]
