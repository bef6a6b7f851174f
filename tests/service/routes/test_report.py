"""``/v1/report``: each format in and out, streamed bodies, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from kernels import dtypes
from kernels.report import numbers, report_of
from service import regimes
from tests import zoo
from tests.service import wire
from tests.service.cases import FORMATS, LABELS, WEIGHT, worked
from tests.service.conftest import Client

PATH = "/v1/report"
MAPS = {"loss_map", "prediction_map", "confidence_map", "label_map"}


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


@pytest.mark.parametrize("accept", [wire.JSON, wire.SAFETENSORS])
@pytest.mark.parametrize("layout", ["rows", "planes"])
def test_a_large_body_is_streamed_to_the_same_report(
    live_server: httpx.URL, layout: str, accept: str
) -> None:
    """Computed while it comes, in memory that slides along it (``service.request.plan``)."""
    rng = np.random.default_rng(7)
    shape = (
        (regimes.STREAMED_BODY_BYTES // 2000 + 1, 1000) if layout == "rows" else (9, 16, 512, 512)
    )
    logits = rng.integers(-3000, 3000, shape, np.int16).view(np.uint16)
    logits = zoo.cast(rng.normal(0, 3, 4096), dtypes.BFLOAT16)[logits % 4096]
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    body = wire.safetensors_body({"labels": labels, "logits": logits})
    headers = {"content-type": wire.SAFETENSORS, "accept": accept}
    response = httpx.post(live_server.join(PATH), content=body, headers=headers, timeout=300)
    expected = as_answered(numbers(report_of(logits, labels)))
    if accept == wire.JSON:
        assert response.json() == expected
    else:
        arrays = wire.tensors_of(response)
        assert json.loads(arrays["report"].tobytes()) == expected
        np.testing.assert_array_equal(arrays["label_map"], labels)


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
