"""Answers that are better than PyTorch's on purpose: one test each.

``test_torch_facts.py`` names these functions beside the facts that they replace.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import oracle, zoo

X = np.array([[1, 2, 3], [0.5, -1, 2]], np.float32)
HALVES = [dtypes.FLOAT16, dtypes.BFLOAT16]


@pytest.mark.parametrize("half", HALVES, ids=lambda half: half.name)
def test_half_precision_is_computed_and_returned_wide(half: dtypes.DType) -> None:
    """PyTorch: inf (f16) and 11.8125 (bf16) for ln 131072; 1100 and 1112 for 1098.61."""
    truth = math.log(131072)
    last = kernels.cross_entropy(zoo.cast(np.zeros((1, 131072)), half), np.zeros(1, np.int64))
    inner = kernels.cross_entropy(
        zoo.cast(np.zeros((1, 131072, 2)), half), np.zeros((1, 2), np.int64), reduction="none"
    )
    assert last.dtype == inner.dtype == np.float32
    assert [float(last), *inner[0].tolist()] == pytest.approx([truth] * 3, rel=2e-7)

    rows, labels = zoo.cast(np.zeros((1000, 3)), half), np.zeros(1000, np.int64)
    mean = kernels.cross_entropy(rows, labels)
    total = kernels.cross_entropy(rows, labels, reduction="sum")
    assert mean.dtype == total.dtype == np.float32
    assert float(mean) == pytest.approx(math.log(3), rel=2e-7)
    assert float(total) == pytest.approx(1000 * math.log(3), rel=2e-7)

    # Four lanes whose levels differ by 300, one class ahead by 1: each costs ln(1 + 3/e).
    level = np.array([0.0, 300.0, -300.0, 300.0])
    lanes = zoo.cast((np.eye(4)[[2]].T + level)[None], half)
    answer = kernels.cross_entropy(lanes, np.full((1, 4), 2), reduction="none")
    oracle.assert_close(answer, oracle.cross_entropy(lanes, np.full((1, 4), 2), reduction="none"))
    if half is dtypes.FLOAT16:  # bfloat16 cannot tell 300 from 301
        assert answer[0].tolist() == pytest.approx([math.log1p(3 / math.e)] * 4, rel=1e-6)


@pytest.mark.parametrize("integer", dtypes.INTEGERS, ids=lambda integer: integer.name)
def test_labels_of_every_integer_width(integer: dtypes.DType) -> None:
    labels = np.array([1, 0], integer.numpy)
    assert float(kernels.cross_entropy(X, labels)) == pytest.approx(1.5744585, rel=2e-7)
    deep = kernels.cross_entropy(X[:, :, None], labels[:, None])
    assert float(deep) == pytest.approx(1.5744585, rel=2e-7)
    log_probs = kernels.log_softmax(X)
    assert float(kernels.nll_loss(log_probs, labels)) == pytest.approx(1.5744585, rel=2e-7)


def test_what_cannot_happen_costs_nothing(dtype: dtypes.DType) -> None:
    """PyTorch: NaN. The class is masked and has probability 0; the others decide."""
    logits = X.copy()
    logits[0, 0] = -np.inf
    labels = zoo.cast(np.array([[0, 0, 1], [1, 0, 0]]), dtype)
    loss = kernels.cross_entropy(zoo.cast(logits, dtype), labels, reduction="none")
    assert loss.tolist() == pytest.approx([0.31326169, 1.74131119], rel=1e-7, abs=1.5e-7)


def test_what_cannot_happen_but_does_costs_everything() -> None:
    """The other side of the rule: a probability above 0 on a masked class, and NaN logits."""
    logits = np.array([[-np.inf, 2, 3], [np.nan, 2, 3], [np.inf, 2, 3]], np.float32)
    labels = np.array([[1e-6, 0, 1], [0, 0, 1], [0, 0, 1]], np.float32)
    assert kernels.cross_entropy(logits[:1], labels[:1]) == np.inf
    rest = kernels.cross_entropy(logits[1:], labels[1:], reduction="none")
    assert np.isnan(rest).tolist() == [True, True]
    smoothed = kernels.cross_entropy(logits[:1], labels[1:2], label_smoothing=0.1)
    assert smoothed == np.inf


NOTHING: dict[str, tuple[Any, Any]] = {
    "all ignored": (X, np.array([-100, -100])),
    "one row, ignored": (X[0], np.array(-100)),
    "no rows": (X[:0], np.zeros(0, np.int64)),
    "no rows, probabilities": (X[:0], X[:0]),
    "no pixels": (np.zeros((2, 3, 0), np.float32), np.zeros((2, 0), np.int64)),
}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", NOTHING)
def test_mean_of_nothing_is_the_callers_choice(name: str, smoothing: float) -> None:
    logits, labels = NOTHING[name]
    assert np.isnan(kernels.cross_entropy(logits, labels, label_smoothing=smoothing))
    zero = kernels.cross_entropy(logits, labels, label_smoothing=smoothing, empty="zero")
    assert zero.shape == ()
    assert zero == 0
    with pytest.raises(kernels.InvalidInput):
        kernels.cross_entropy(logits, labels, label_smoothing=smoothing, empty="error")
    for reduction in ("sum", "none"):  # these are never a mean of nothing
        answer = kernels.cross_entropy(logits, labels, reduction=reduction, empty="error")
        assert not answer.any()


def test_mean_of_nothing_in_nll_loss() -> None:
    ignored = np.array([7, 7])
    assert np.isnan(kernels.nll_loss(X, ignored, ignore_index=7))
    assert kernels.nll_loss(X, ignored, ignore_index=7, empty="zero") == 0
    with pytest.raises(kernels.InvalidInput):
        kernels.nll_loss(X, ignored, ignore_index=7, empty="error")


def test_label_out_of_range_is_named() -> None:
    """Position, value and range; ``test_labels.py`` proves it for every dtype and layout."""
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(
            np.zeros((2, 3, 4), np.float32), np.array([[0, 1, 2, 0], [0, 0, 7, 9]])
        )
    assert caught.value.field == "labels"
    assert caught.value.position == (1, 2)
    message = caught.value.message
    assert "7" in message
    assert "2" in message.replace("(1, 2)", "").replace("[1, 2]", "").replace("[1][2]", "")


@pytest.mark.parametrize("smoothing", [math.nan, -0.1, -1e-9, 1.0000001, 1.2, math.inf, -math.inf])
@pytest.mark.parametrize("labels", [np.array([2, 0]), X], ids=["classes", "probabilities"])
def test_label_smoothing_is_a_fraction(smoothing: float, labels: Any) -> None:
    """PyTorch takes NaN and anything negative for 'off'."""
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(X, labels, label_smoothing=smoothing)
    assert caught.value.field == "label_smoothing"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_are_finite(value: float, dtype: dtypes.DType) -> None:
    weight = zoo.cast(np.array([1, value, 1]), dtype)
    for labels in (np.array([2, 0]), zoo.cast(X, dtype)):
        with pytest.raises(kernels.InvalidInput) as caught:
            kernels.cross_entropy(zoo.cast(X, dtype), labels, weight=weight)
        assert caught.value.field == "weight"
        assert caught.value.position == (1,)
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.nll_loss(zoo.cast(X, dtype), np.array([2, 0]), weight=weight)
    assert caught.value.field == "weight"


@pytest.mark.parametrize("other", [*dtypes.FLOATS, *dtypes.INTEGERS], ids=lambda row: row.name)
def test_weights_of_any_type(other: dtypes.DType, dtype: dtypes.DType) -> None:
    """PyTorch wants the logits' own. These weights are the same in every type."""
    logits, values = zoo.cast(X, dtype), np.array([3, 0, 2])
    for labels in (np.array([2, 0]), zoo.cast(np.array([[0.5, 0, 0.5], [0.25, 0.5, 0.25]]), dtype)):
        for smoothing in (0.0, 0.1):
            want, got = (
                kernels.cross_entropy(logits, labels, weight=weight, label_smoothing=smoothing)
                for weight in (values.astype(np.float32), zoo.cast(values, other))
            )
            assert got.tobytes() == want.tobytes()
    log_probs = kernels.log_softmax(logits)
    want = kernels.nll_loss(log_probs, np.array([2, 0]), weight=values.astype(np.float32))
    got = kernels.nll_loss(log_probs, np.array([2, 0]), weight=zoo.cast(values, other))
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("integer", dtypes.INTEGERS, ids=lambda integer: integer.name)
def test_integer_probabilities_stay_an_error(integer: dtypes.DType) -> None:
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(X, np.eye(3)[[2, 0]].astype(integer.numpy))
    assert caught.value.field == "labels"
