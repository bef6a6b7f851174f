"""Every line of ``torch_facts.jsonl`` (PyTorch 2.13, CPU) is held here or improved on purpose.

The file names its cases and gives their answers; the inputs are reconstructed in ``VALUES`` and
``ERRORS``, and the oracle proves the reconstruction by arriving at the same answers.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

import kernels
from tests import oracle
from tests.kernels import test_improvements
from tests.oracle import Array

FILE = Path(__file__).parents[1] / "data" / "torch_facts.jsonl"
FACTS = {fact["case"]: fact for fact in map(json.loads, FILE.read_text().splitlines()[1:])}
# An empty sum is +0.0 here, whatever the labels are; PyTorch negates it for probabilities.
SIGN_OF_ZERO_IS_OURS = {"empty_soft/sum"}


class Case(NamedTuple):
    """Arguments of ``cross_entropy``; for an error, the argument that is at fault."""

    logits: Array
    labels: Array
    options: dict[str, Any]
    field: str = ""


def _case(logits: Array, labels: Any, *, field: str = "", **options: Any) -> Case:
    return Case(logits, np.asarray(labels), options, field)


def _floats(*values: Any) -> Array:
    return np.array(values, np.float32)


X = _floats([1, 2, 3], [0.5, -1, 2])
ONE_HOT_2_0 = _floats([0, 0, 1], [1, 0, 0])

BY_REDUCTION = {
    "all_ignored": _case(X, [-100, -100]),
    "all_ignored_ls": _case(X, [-100, -100], label_smoothing=0.1),
    "empty_batch": _case(X[:0], np.zeros(0, np.int64)),
    "empty_batch_ls": _case(X[:0], np.zeros(0, np.int64), label_smoothing=0.1),
    "empty_soft": _case(X[:0], X[:0]),
    "empty_spatial": _case(np.zeros((2, 3, 0), np.float32), np.zeros((2, 0), np.int64)),
    "zero_weight": _case(X, [2, 0], weight=_floats(0, 0, 0)),
    "unbatched": _case(X[0], 2),
    "unbatched_ignored": _case(X[0], -100),
    "unbatched_soft": _case(X[0], _floats(0.2, 0.3, 0.5)),
    "weight_ls_ii": _case(
        X, [2, 1], weight=_floats(0.3, 0.6, 0.9), label_smoothing=0.2, ignore_index=1
    ),
    "soft_weight_ls": _case(
        X,
        _floats([0.2, 0.3, 0.5], [1, 0, 0]),
        weight=_floats(0.3, 0.6, 0.9),
        label_smoothing=0.2,
    ),
}


def _with_logit(value: str, column: int) -> dict[str, Case]:
    """The five cases of one odd logit in row 0; row 1 is the same everywhere."""
    logits = X.copy()
    logits[0, column] = float(value)
    name = f"logit {value}@{column}, "
    return {
        name + "target 2": _case(logits, [2, 0], reduction="none"),
        name + "target 2, ignored row0": _case(logits, [-100, 0]),
        name + "ls=.1": _case(logits, [2, 0], label_smoothing=0.1, reduction="none"),
        name + "soft onehot 2": _case(logits, ONE_HOT_2_0, reduction="none"),
        name + "weight[2]=0": _case(logits, [2, 0], weight=_floats(1, 1, 0), reduction="none"),
    }


VALUES = {
    f"{name}/{reduction}": case._replace(options=case.options | {"reduction": reduction})
    for name, case in BY_REDUCTION.items()
    for reduction in ("none", "mean", "sum")
}
for _odd in ("+inf", "-inf", "nan"):
    VALUES |= _with_logit(_odd, 0) | _with_logit(_odd, 2)
VALUES |= {
    "all -inf row": _case(np.full((1, 3), -np.inf, np.float32), [0], reduction="none"),
    "one class": _case(_floats([1], [2]), [0, 0], reduction="none"),
    "target dtype torch.uint8 2d": _case(X, np.array([1, 0], np.uint8)),
    "label_smoothing 1.0": _case(X, [2, 0], label_smoothing=1.0),
    "neg weight mean": _case(X, [2, 0], weight=_floats(-1, 1, 2)),
    "ignored but OOB-free: ii=255": _case(X, [255, 0], ignore_index=255),
    "torch.float32 equal logits V=131072 lastdim (truth 11.783502)": _case(
        np.zeros((1, 131072), np.float32), [0], reduction="none"
    ),
    "torch.float32 equal logits V=131072 NCd (truth 11.783502)": _case(
        np.zeros((1, 131072, 2), np.float32), [[0, 0]], reduction="none"
    ),
    "torch.float32 mean of 1000 equal rows C=3 (truth 1.098612)": _case(
        np.zeros((1000, 3), np.float32), np.zeros(1000, np.int64)
    ),
    "torch.float32 sum of 1000 equal rows C=3 (truth 1098.6123)": _case(
        np.zeros((1000, 3), np.float32), np.zeros(1000, np.int64), reduction="sum"
    ),
}

ERRORS = {
    "oob target 3": _case(X, [3, 0], field="labels"),
    "oob target -1": _case(X, [-1, 0], field="labels"),
    "oob target -101": _case(X, [-101, 0], field="labels"),
    "target dtype torch.bool 2d": _case(X, [True, False], field="labels"),
    "target dtype torch.bool 3d": _case(X[:, :, None], [[True], [False]], field="labels"),
    "target dtype torch.float32 2d": _case(X, _floats(1, 0), field="labels"),
    "target dtype torch.float32 3d": _case(X[:, :, None], _floats([1], [0]), field="labels"),
    "int target same shape": _case(X, np.zeros((2, 3), np.int64), field="labels"),
    "soft + ignore_index>=0": _case(X, ONE_HOT_2_0, ignore_index=0, field="ignore_index"),
    "label_smoothing 1.2": _case(X, [2, 0], label_smoothing=1.2, field="label_smoothing"),
    "weight wrong len": _case(X, [2, 0], weight=_floats(1, 1), field="weight"),
    "int logits": _case(X.astype(np.int64), [2, 0], field="logits"),
    "(5,) vs (5,) long": _case(np.zeros(5, np.float32), [0, 1, 2, 3, 4], field="labels"),
    "batch mismatch": _case(X, [2, 0, 1], field="labels"),
}

_WIDE = test_improvements.test_half_precision_is_computed_and_returned_wide
_WIDTHS = test_improvements.test_labels_of_every_integer_width
_FRACTION = test_improvements.test_label_smoothing_is_a_fraction
IMPROVED = {
    "logit -inf@0, soft onehot 2": test_improvements.test_what_cannot_happen_costs_nothing,
    "target dtype torch.int32 2d": _WIDTHS,
    "target dtype torch.int32 3d": _WIDTHS,
    "target dtype torch.int16 2d": _WIDTHS,
    "target dtype torch.int16 3d": _WIDTHS,
    "target dtype torch.uint8 3d": _WIDTHS,
    "label_smoothing -0.1": _FRACTION,
    "label_smoothing nan": _FRACTION,
    "weight f64 vs logits f32": test_improvements.test_weights_of_any_type,
    "half dim=1 lanes differ by 300 (pre-2.8 bug -> inf)": _WIDE,
} | {name: _WIDE for name in FACTS if name.startswith(("torch.bfloat16 ", "torch.float16 "))}
for _name in IMPROVED:
    VALUES.pop(_name, None)


def _value(text: str) -> Array:
    return np.array(json.loads(re.sub("nan", "NaN", re.sub("inf", "Infinity", text))))


def test_every_fact_is_held_or_improved() -> None:
    tables = [*VALUES, *ERRORS, *IMPROVED]
    assert sorted(tables) == sorted(FACTS)


@pytest.mark.parametrize("room", [kernels, oracle], ids=["kernels", "oracle"])
@pytest.mark.parametrize("name", VALUES)
def test_values(name: str, room: ModuleType) -> None:
    logits, labels, options, _ = VALUES[name]
    fact = FACTS[name]
    want = _value(fact["value"])
    got = room.cross_entropy(logits, labels, **options)
    if "NCd" in name:  # the file holds these without their batch of one
        got = got[0]
    assert list(got.shape) == fact["shape"]
    assert room is oracle or f"torch.{got.dtype}" == fact["dtype"]
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=2e-6, atol=0)
    if name not in SIGN_OF_ZERO_IS_OURS:
        zero = want == 0
        assert np.signbit(got[zero]).tolist() == np.signbit(want[zero]).tolist()


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    assert "error" in FACTS[name]
    logits, labels, options, field = ERRORS[name]
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(logits, labels, **options)
    assert caught.value.field == field
