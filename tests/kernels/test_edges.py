"""Sizes 0 and 1, every option's wrong values, and the outputs by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import oracle, zoo
from tests.oracle import Array

X = np.array([[1, 2, 3], [0.5, -1, 2]], np.float32)
Y = np.array([2, 0])


@pytest.mark.parametrize(
    "shape", [(0,), (0, 3), (3, 0), (0, 0), (2, 3, 0), (0, 3, 4), (2, 3, 4, 0, 5), (2, 0, 4)]
)
def test_softmax_of_nothing(shape: tuple[int, ...], dtype: dtypes.DType) -> None:
    for function in (kernels.log_softmax, kernels.softmax):
        answer = function(zoo.cast(np.zeros(shape), dtype))
        assert answer.shape == shape
        assert answer.dtype == dtype.result


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0), (0, 3, 4), (2, 3, 4, 0, 5), (0, 1)])
def test_loss_of_nothing(shape: tuple[int, ...], dtype: dtypes.DType) -> None:
    logits = zoo.cast(np.zeros(shape), dtype)
    labels = np.zeros((shape[0], *shape[2:]), np.int64)
    for target in (labels, logits):
        none = kernels.cross_entropy(logits, target, reduction="none")
        assert none.shape == labels.shape
        assert none.dtype == dtype.result
        assert kernels.cross_entropy(logits, target, reduction="sum") == 0
        assert np.isnan(kernels.cross_entropy(logits, target))


def test_no_classes_is_nothing_to_choose_from() -> None:
    logits = np.zeros((2, 0), np.float32)
    for labels in (np.array([-100, 0]), np.array([0, 0]), logits):
        with pytest.raises(kernels.InvalidInput) as caught:
            kernels.cross_entropy(logits, labels)
        assert caught.value.field in {"labels", "logits"}


def test_one_class_costs_nothing(dtype: dtypes.DType) -> None:
    """An exact hit is -0.0, as in PyTorch."""
    logits = zoo.cast(np.array([[5.0], [-7.0], [0.0]]), dtype)
    loss = kernels.cross_entropy(logits, np.zeros(3, np.int64), reduction="none")
    assert loss.tolist() == [0, 0, 0]
    assert np.signbit(loss).all()
    assert kernels.softmax(logits).tolist() == [[1], [1], [1]]


def test_exact_hit_costs_nothing(dtype: dtypes.DType) -> None:
    """The other classes are so unlikely that the sum of exponentials rounds to 1: again -0.0."""
    logits = np.zeros((5, 40))
    logits[np.arange(5), [0, 7, 8, 20, 39]] = 800
    for axis, rows in ((1, logits), (0, logits.T)):
        loss = kernels.cross_entropy(
            zoo.cast(rows, dtype), np.array([0, 7, 8, 20, 39]), class_axis=axis, reduction="none"
        )
        assert loss.tolist() == [0] * 5
        assert np.signbit(loss).all()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_one_row_alone_is_a_number(reduction: str, dtype: dtypes.DType) -> None:
    loss = kernels.cross_entropy(zoo.cast(X[0], dtype), np.array(2), reduction=reduction)
    assert loss.shape == ()
    assert isinstance(loss, np.ndarray)
    assert float(loss) == pytest.approx(0.40760596, rel=1e-6)
    outputs = kernels.cross_entropy(zoo.cast(X[0], dtype), np.array(2), outputs=["per_element"])
    assert outputs["per_element"].shape == ()


def test_one_row_alone_may_be_ignored() -> None:
    assert kernels.cross_entropy(X[0], np.array(-100), reduction="none") == 0
    assert np.isnan(kernels.cross_entropy(X[0], np.array(-100)))


def test_label_of_the_logits_shape_is_a_probability_even_for_one_class() -> None:
    """(1,) logits with (1,) labels: PyTorch takes them for probabilities, so integers are wrong."""
    assert kernels.cross_entropy(np.ones(1, np.float32), np.ones(1, np.float32)) == 0
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(np.ones(1, np.float32), np.zeros(1, np.int64))
    assert caught.value.field == "labels"


def test_ignored_row_stays_zero_whatever_it_holds() -> None:
    logits = np.array([[np.nan] * 3, [np.inf] * 3, [-np.inf] * 3, [1, 2, 3]], np.float32)
    for options in ({}, {"label_smoothing": 0.1}, {"weight": np.array([1, 2, 3], np.float32)}):
        labels = np.array([-100, -100, -100, 2])
        loss = kernels.cross_entropy(logits, labels, reduction="none", **options)
        assert loss[:3].tolist() == [0, 0, 0]
        assert np.isfinite(kernels.cross_entropy(logits, labels, **options))


def test_only_the_odd_row_is_odd(dtype: dtypes.DType) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (33, 40))
    clean = kernels.cross_entropy(zoo.cast(logits, dtype), np.zeros(33, np.int64), reduction="none")
    logits[16, 20] = np.nan
    odd = kernels.cross_entropy(zoo.cast(logits, dtype), np.zeros(33, np.int64), reduction="none")
    assert np.flatnonzero(np.isnan(odd)).tolist() == [16]
    assert np.delete(odd, 16).tobytes() == np.delete(clean, 16).tobytes()


def test_total_weight_of_zero_is_nan() -> None:
    weight = np.array([0, 1, 0], np.float32)
    assert np.isnan(kernels.cross_entropy(X, Y, weight=weight))
    assert np.isnan(kernels.cross_entropy(X, Y, weight=weight, label_smoothing=0.1))
    assert kernels.cross_entropy(X, Y, weight=weight, reduction="sum") == 0
    opposite = np.array([1, 0, -1], np.float32)
    assert kernels.cross_entropy(X, Y, weight=opposite) == np.inf


def test_probabilities_are_taken_as_they_are() -> None:
    """Unchecked, they need not sum to 1, nor be positive; PyTorch's own tests use randn."""
    rng = np.random.default_rng(3)
    logits, soft = rng.normal(0, 3, (2, 50, 33)).astype(np.float32)
    weight = rng.normal(0, 1, 33).astype(np.float32)
    for reduction in ("none", "mean", "sum"):
        for smoothing in (0.0, 0.3, 1.0):
            options: dict[str, Any] = {
                "weight": weight, "reduction": reduction, "label_smoothing": smoothing,
            }  # fmt: skip
            got = kernels.cross_entropy(logits, soft, check_probabilities=False, **options)
            want = oracle.cross_entropy(logits, soft, **options)
            size = oracle.cross_entropy(logits, abs(soft), **(options | {"weight": abs(weight)}))
            oracle.assert_close(got, want, scale=size)


@pytest.mark.parametrize(
    ("own", "other"),
    # Each pair is a specialisation of its own.
    [
        (dtypes.FLOAT32, dtypes.FLOAT64),
        (dtypes.FLOAT64, dtypes.FLOAT32),
        *([(dtypes.BFLOAT16, dtypes.FLOAT32)] if zoo.EVERY else []),
    ],
    ids=lambda dtype: dtype.name,
)
def test_probabilities_of_another_float_type(own: dtypes.DType, other: dtypes.DType) -> None:
    labels = zoo.cast(np.array([[0.25, 0.25, 0.5], [0, 1, 0]]), other)
    logits = zoo.cast(X, own)
    got = kernels.cross_entropy(logits, labels, reduction="none")
    want = oracle.cross_entropy(logits, labels, reduction="none")
    np.testing.assert_allclose(got, want.astype(np.float64), rtol=2e-6)


@pytest.mark.parametrize("smoothing", [0.0, 1.0, 0.999999, 5e-324])
def test_smoothing_at_its_ends(smoothing: float) -> None:
    options: dict[str, Any] = {"label_smoothing": smoothing, "reduction": "none"}
    for labels in (Y, np.array([[0, 0, 1], [1, 0, 0]], np.float32)):
        want = oracle.cross_entropy(X, labels, **options)
        oracle.assert_close(kernels.cross_entropy(X, labels, **options), want)


def test_class_axis_counts_from_either_end(dtype: dtypes.DType) -> None:
    logits = zoo.cast(np.random.default_rng(4).normal(0, 3, (2, 3, 4, 5)), dtype)
    for axis in range(4):
        shape = np.delete(logits.shape, axis)
        labels = np.random.default_rng(5).integers(0, logits.shape[axis], shape)
        for same in (axis, axis - 4):
            got = kernels.cross_entropy(logits, labels, class_axis=same, reduction="none")
            want = oracle.cross_entropy(logits, labels, class_axis=axis, reduction="none")
            oracle.assert_close(got, want)
            answer = kernels.log_softmax(logits, class_axis=same)
            oracle.assert_close(answer, oracle.log_softmax(logits, axis))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "class_axis too large": ({"class_axis": 2}, "class_axis"),
    "class_axis too small": ({"class_axis": -3}, "class_axis"),
    "unknown reduction": ({"reduction": "average"}, "reduction"),
    "no reduction": ({"reduction": None}, "reduction"),
    "unknown empty": ({"empty": "0"}, "empty"),
    "unknown output": ({"outputs": ["loss", "gradients"]}, "outputs"),
    "matrix of weights": ({"weight": np.ones((1, 3), np.float32)}, "weight"),
    "boolean weights": ({"weight": np.ones(3, bool)}, "weight"),
    "complex weights": ({"weight": np.ones(3, np.complex64)}, "weight"),
    "empty weights": ({"weight": np.ones(0, np.float32)}, "weight"),
    "fractional ignore_index": ({"ignore_index": 1.5}, "ignore_index"),
    "labels of too few axes": ({"labels": np.array(2)}, "labels"),
    "labels of too many axes": ({"labels": Y[:, None]}, "labels"),
    "complex labels": ({"labels": Y.astype(np.complex64)}, "labels"),
    "labels of text": ({"labels": np.array(["2", "0"])}, "labels"),
    "labels that are objects": ({"labels": Y.astype(object)}, "labels"),
    "logits of no axes": ({"logits": np.float32(1) * np.ones(()), "labels": np.array(0)}, "logits"),
    "complex logits": ({"logits": X.astype(np.complex64)}, "logits"),
    "boolean logits": ({"logits": X > 0}, "logits"),
    "long double logits": ({"logits": X.astype(np.longdouble)}, "logits"),
    "logits that are objects": ({"logits": X.astype(object)}, "logits"),
    "half probabilities": ({"labels": X[:, :2]}, "labels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_names_the_argument(name: str) -> None:
    changes, field = WRONG[name]
    arguments: dict[str, Any] = {"logits": X, "labels": Y} | changes
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(**arguments)
    assert caught.value.field == field
    assert caught.value.message == str(caught.value)
    assert caught.value.message


def test_nll_loss_names_its_own_arguments() -> None:
    for log_probs in (X.astype(np.int32), np.ones((), np.float32)):
        with pytest.raises(kernels.InvalidInput) as caught:
            kernels.nll_loss(log_probs, Y)
        assert caught.value.field == "log_probs"
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.nll_loss(X, X)  # probabilities
    assert caught.value.field == "labels"


def test_softmax_names_its_own_arguments() -> None:
    for function in (kernels.log_softmax, kernels.softmax):
        for logits in (X.astype(np.int32), np.ones((), np.float32)):
            with pytest.raises(kernels.InvalidInput) as caught:
                function(logits)
            assert caught.value.field == "logits"
        with pytest.raises(kernels.InvalidInput) as caught:
            function(X, class_axis=2)
        assert caught.value.field == "class_axis"


@pytest.mark.parametrize("function", [kernels.cross_entropy, kernels.nll_loss])
def test_outputs_by_name(function: Any) -> None:
    def bits(array: Array) -> tuple[Any, ...]:
        return array.shape, array.dtype, array.tobytes()

    assert {"loss", "per_element"} <= set(kernels.OUTPUTS)
    for reduction in ("none", "mean", "sum"):
        loss = function(X, Y, reduction=reduction)
        per_element = function(X, Y, reduction="none")
        for names in (["loss"], ["per_element"], ["per_element", "loss"]):
            answer = function(X, Y, reduction=reduction, outputs=names)
            assert set(answer) == set(names)
            for name, array in answer.items():
                assert bits(array) == bits(loss if name == "loss" else per_element)
