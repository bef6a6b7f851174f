"""PyTorch's ``kl_div``, and its gradients by autograd: each fact holds, or is better on purpose.

``tests/data/torch_divergence.py`` made the facts, and says how. PyTorch's NaN are limits here:
0 * (-inf - -inf) is 0, and the gradient of an infinite divergence is infinite.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernels
from tests import divergence_oracle
from tests.data.torch_divergence import CASES, tensors

FILE = Path(__file__).parents[1] / "data" / "torch_divergence.jsonl"
VERSION, *FACTS = map(json.loads, FILE.read_text().splitlines())
# Where PyTorch answers NaN, and there is a limit.
IMPROVED = {"masked student", "masked teacher", "masked both"}


def test_every_case_is_there() -> None:
    assert VERSION["torch"].startswith("2.13.0")
    assert {fact["case"] for fact in FACTS} == set(CASES)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: f"{fact['case']}, {fact['direction']}")
def test_fact(fact: dict[str, Any]) -> None:
    student, teacher = tensors(fact["case"])
    options = {
        "direction": fact["direction"].partition(",")[0],
        "temperature": CASES[fact["case"]].get("temperature", 1.0),
    }
    got = kernels.kl_div(
        student,
        teacher,
        reduction="sum",
        outputs=["loss", "per_element", "gradient"],
        **options,
    )
    mean = kernels.kl_div(student, teacher, **options)  # over positions: PyTorch's batchmean
    per_element = np.array([float(value) for value in fact["per_element"]])
    gradient = np.array([[float(value) for value in row] for row in fact["gradient"]])
    known, slopes = ~np.isnan(per_element), ~np.isnan(gradient)
    assert (known.all() and slopes.all()) or fact["case"] in IMPROVED
    np.testing.assert_allclose(got["per_element"][known], per_element[known], rtol=1e-12)
    np.testing.assert_allclose(got["gradient"][slopes], gradient[slopes], rtol=1e-9, atol=1e-13)
    if known.all():
        np.testing.assert_allclose(float(mean), float(fact["batchmean"]), rtol=1e-12)
    assert not np.isnan(got["per_element"]).any()
    assert not np.isnan(got["gradient"]).any()
    want = divergence_oracle.per_position(student, targets=teacher, **options)
    np.testing.assert_allclose(got["per_element"], want.astype(np.float64), rtol=1e-12)
