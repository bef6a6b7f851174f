"""Requests for arrays of a problem: a server's arrays have the bits of the kernels here."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from kernels import InvalidInput, dtypes
from kernels.devices import compute
from kernels.problem import Problem, check
from service.bulk.executors import inference
from service.bulk.executors.inference import HEADER_LENGTH, Request, WrongAnswer, arrays_of
from service.bulk.scores import outputs_of
from tests import zoo
from tests.service.conftest import Client

EXAMPLES: dict[str, tuple[tuple[int, ...], int, str, bool, dict[str, Any]]] = {
    "flat": ((9, 13), 1, "plain", False, {}),
    "options": ((9, 13), 1, "weight", False, {"label_smoothing": 0.2, "z_loss": 0.01}),
    "sequences": ((4, 6, 13), 2, "sample_weight", False, {"shift": 1, "mask": ...}),
    "channels first": ((3, 7, 4, 5), 1, "weight", False, {"shift": -2}),
    "probabilities": ((5, 13), 1, "sample_weight", True, {"check_probabilities": False}),
}


def problem_of(name: str, dtype: dtypes.DType, fortran: bool = False) -> Problem:
    shape, axis, options, soft, more = EXAMPLES[name]
    logits, labels, given = zoo.example(shape, axis, dtype, options, soft=soft)
    if "mask" in more:
        more = more | {"mask": np.arange(labels.size).reshape(labels.shape) % 5 != 0}
    if fortran:
        logits = np.asfortranarray(logits)
        labels = np.asfortranarray(labels) if soft else labels
    return check(logits, labels, **given, **more)


def asked(problem: Problem) -> Request:
    return inference.request_of(problem, outputs_of(problem, True))


def answered(client: Client, request: Request) -> tuple[str | None, bytes]:
    """Answer of the service: the length of its JSON, and its bytes."""
    answer = client.post(
        inference.PATH, content=b"".join(request.chunks()), headers=request.headers
    )
    assert answer.status_code == 200, answer.text
    return answer.headers.get(HEADER_LENGTH), answer.content


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_server_has_the_bits_of_the_kernels_here(
    client: Client, name: str, dtype: dtypes.DType
) -> None:
    problem = problem_of(name, dtype)
    request = asked(problem)
    got = arrays_of(request, *answered(client, request))
    _, want = compute(problem, outputs_of(problem, True))
    for array, values in got.items():
        assert values.dtype == want[array].dtype, array
        assert values.tobytes() == want[array].reshape(-1).tobytes(), array
    assert {"losses", "weights", "per_element", "prediction"} <= got.keys()


@pytest.mark.parametrize("name", ["flat", "options", "probabilities"])
def test_logits_in_fortran_order_are_added_in_that_order(client: Client, name: str) -> None:
    problem = problem_of(name, dtypes.FLOAT32, fortran=True)
    request = asked(problem)
    assert json.loads(request.text)["parameters"]["class_axis"] == 0
    got = arrays_of(request, *answered(client, request))
    _, want = compute(problem, outputs_of(problem, True))
    assert all(got[array].tobytes() == want[array].tobytes() for array in got)


def test_an_order_that_the_protocol_cannot_say_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Fortran order"):
        asked(problem_of("sequences", dtypes.FLOAT32, fortran=True))


def test_the_logits_come_last_and_the_lengths_are_true() -> None:
    request = asked(problem_of("options", dtypes.BFLOAT16))
    said = json.loads(request.text)
    assert [entry["name"] for entry in said["inputs"]] == ["labels", "weight", "logits"]
    assert said["inputs"][-1]["datatype"] == "BF16"
    body = b"".join(request.chunks())
    assert request.headers["Content-Length"] == str(len(body))
    assert request.headers[HEADER_LENGTH] == str(len(request.text))
    assert said["parameters"]["device"] == "cpu"


def answer_of(request: Request, *changes: tuple[str, Any]) -> bytes:
    """An answer to ``request``, all zeros, and changes of its first output."""
    outputs = [
        {
            "name": inference.TERMS.get(name, name),
            "datatype": {"f4": "FP32", "f8": "FP64", "i8": "INT64"}[dtype.str[1:]],
            "shape": list(request.shape),
            "parameters": {"binary_data_size": request.sizes[name]},
        }
        for name, dtype in request.arrays.items()
    ]
    for name, value in changes:
        outputs[0][name] = value
    return json.dumps({"outputs": outputs}).encode()


@pytest.mark.parametrize(
    ("changes", "extra", "length"),
    [
        ([("name", "rank")], 0, None),
        ([("datatype", "FP64")], 0, None),
        ([("shape", [13])], 0, None),
        ([("shape", "9")], 0, None),
        ([("parameters", {"binary_data_size": 1})], 0, None),
        ([("parameters", {})], 0, None),
        ([], -1, None),
        ([], 1, None),
        ([], 0, "10"),
        ([], 0, "100000000"),
        ([], 0, "-1"),
        ([], 0, ""),
    ],
)
def test_an_answer_to_something_else_is_wrong(
    changes: list[tuple[str, Any]], extra: int, length: str | None
) -> None:
    request = asked(problem_of("flat", dtypes.FLOAT32))
    size = sum(request.sizes.values())
    text = answer_of(request)
    assert len(arrays_of(request, str(len(text)), text + bytes(size))) == len(request.arrays)
    text = answer_of(request, *changes)
    with pytest.raises(WrongAnswer):
        arrays_of(request, str(len(text)) if length is None else length, text + bytes(size + extra))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"outputs": 3}'])
def test_json_of_something_else_is_wrong(text: bytes) -> None:
    request = asked(problem_of("flat", dtypes.FLOAT32))
    with pytest.raises(WrongAnswer):
        arrays_of(request, str(len(text)), text)
    with pytest.raises(WrongAnswer):
        arrays_of(request, None, text)
