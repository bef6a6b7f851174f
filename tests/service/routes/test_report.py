"""``/v1/report``: each format in and out, streamed bodies, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from kernels.report import numbers, report_of
from tests.service import wire
from tests.service.cases import FORMATS, LABELS, WEIGHT, worked
from tests.service.conftest import Client

PATH = "/v1/report"
MAPS = {"loss_map", "prediction_map", "confidence_map", "label_map", "counted_map"}


def as_answered(value: Any) -> Any:
    """``value`` with texts for the floats that JSON has no number for."""
    if isinstance(value, dict):
        return {name: as_answered(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_answered(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    return value


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("sent", FORMATS)
def test_every_format_gets_the_same_report(client: Client, sent: str, accept: str) -> None:
    expected = as_answered(numbers(report_of(**worked(), worst=3)))
    response = client.send(
        f"{PATH}?worst=3",
        wire.BODIES[sent](worked()),
        wire.MEDIA_TYPES[sent],
        accept=wire.MEDIA_TYPES[accept],
    )
    assert response.status_code == 200, response.text
    if accept == "json":
        assert response.json() == expected
        return
    arrays = wire.tensors_of(response)
    assert arrays.keys() == {"report", *MAPS}
    assert json.loads(arrays["report"].tobytes()) == expected
    assert {arrays[name].shape for name in MAPS} == {LABELS.shape}
    np.testing.assert_array_equal(arrays["label_map"], LABELS)
    shown = expected["worst"][0]
    at = tuple(shown["index"])
    assert arrays["loss_map"][at] == pytest.approx(shown["loss"])
    assert arrays["prediction_map"][at] == shown["prediction"]
    assert arrays["confidence_map"][at] == pytest.approx(shown["confidence"])


def test_values_that_json_cannot_write_are_texts(client: Client) -> None:
    answer = client.post(PATH, json={"logits": [[0, 1]], "labels": [-100]}).json()
    assert (answer["loss"], answer["accuracy"], answer["count"]) == ("NaN", "NaN", 0)
    assert answer["calibration"]["temperature"]["best"] == "NaN"
    impossible = {"logits": [["-Infinity", 1.0]], "labels": [0]}
    answer = client.post(PATH, json=impossible).json()
    assert answer["loss"] == answer["worst"][0]["loss"] == "Infinity"
    assert answer["worst"][0]["margin"] == "-Infinity"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"bins": 0}, "bins"),
        ({"bins": 1001}, "bins"),
        ({"worst": -1}, "worst"),
        ({"layout": "image"}, "layout"),
        ({"layout": "round"}, "layout"),
        ({"outputs": ["loss"]}, "outputs"),
        ({"reduction": "sum"}, "reduction"),
        ({"labels": [0, 2]}, "labels"),
        ({"labels": [[0.5, 0.5], [0.5, 0.5]]}, "labels"),
        ({"labels": [0]}, "labels"),
        ({"sample_weight": [1, "NaN"]}, "sample_weight"),
        ({"class_axis": 2}, "class_axis"),
        ({"temperature": 0}, "temperature"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(client: Client, changes: dict[str, Any], field: str) -> None:
    body = {"logits": [[0.0, 1.0], [2.0, 3.0]], "labels": [0, 1]} | changes
    problem = wire.problem_of(client.post(PATH, json=body), 422)
    assert problem["field"] == field


def test_weights_count(client: Client) -> None:
    tensors = worked() | {
        "sample_weight": np.arange(LABELS.size, dtype=float).reshape(LABELS.shape)
    }
    answer = client.post(PATH, content=wire.json_body(tensors), headers={"content-type": wire.JSON})
    loss = client.post(
        "/v1/cross_entropy",
        content=wire.json_body(tensors),
        headers={"content-type": wire.JSON},
    ).json()
    found = answer.json()
    assert found["loss"] == pytest.approx(loss["loss"])
    assert found["weight_sum"] == pytest.approx(loss["weight_sum"])
    assert found["count"] == LABELS.size - 1
    assert found["weight_sum"] == pytest.approx((tensors["sample_weight"] * WEIGHT[LABELS]).sum())
