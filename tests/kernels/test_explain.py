"""The chain is right link by link, and its three routes agree."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from kernels import InvalidInput, dtypes
from kernels.explain import DIFFERENCE, ROUTES, chain
from tests import oracle, zoo

LOGITS = np.array([[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [1, 3, 2, 3, 0], [0, 0, 0, 0, 0]], np.float32)
LABELS = np.array([1, 4, 3, 2])
ULP = 2.0**-23


def agree(explained: dict[str, Any], within: float = 4 * ULP) -> float:
    losses = [float(explained[name]) for name in ROUTES]
    assert np.allclose(losses, losses[0], rtol=within, atol=0, equal_nan=True), losses
    apart = max(losses) - min(losses) if np.isfinite(losses[0]) else 0
    assert float(explained[DIFFERENCE]) == apart
    return losses[0]


def test_the_worked_example() -> None:
    explained = chain(LOGITS, LABELS)
    assert f"{agree(explained):.4f}" == "1.5722"
    assert explained["per_element"].round(4).tolist() == pytest.approx(
        [1.6094, 2.1326, 0.9373, 1.6094]
    )
    assert explained["one_hot"].tolist() == np.eye(5)[LABELS].tolist()
    np.testing.assert_allclose(explained["softmax"], np.exp(explained["log_softmax"]), rtol=1e-6)
    np.testing.assert_allclose(explained["softmax"].sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3, -1, -2])
def test_the_routes_agree_along_any_axis(axis: int | None, weighted: bool, reduction: str) -> None:
    rng = np.random.default_rng(3)
    shape = (3, 4, 5, 6)
    classes = shape[1 if axis is None else axis]
    place = 1 if axis is None else axis % 4
    logits = rng.normal(0, 3, shape).astype(np.float32)
    labels = rng.integers(0, classes, shape[:place] + shape[place + 1 :])
    labels[rng.random(labels.shape) < 0.3] = -100
    weight = rng.random(classes).astype(np.float32) if weighted else None
    explained = chain(logits, labels, weight=weight, class_axis=axis, reduction=reduction)
    agree(explained, within=1e-6)
    last = np.moveaxis(explained["one_hot"], place, -1)
    expected = np.where((labels >= 0)[..., None], np.eye(classes)[labels.clip(0)], 0)
    assert np.array_equal(last, expected)
    assert (explained["per_element"][labels < 0] == 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("temperature", "label_smoothing"), [(0.5, 0.0), (3.0, 0.1), (1.0, 1.0)], ids=str
)
def test_the_routes_agree_when_labels_are_smoothed(
    temperature: float, label_smoothing: float, weighted: bool, reduction: str
) -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 3, (3, 4, 5)).astype(np.float32)
    labels = np.where(rng.random((3, 5)) < 0.3, -100, rng.integers(0, 4, (3, 5)))
    weight = rng.random(4).astype(np.float32) if weighted else None
    options: dict[str, Any] = {
        "temperature": temperature,
        "label_smoothing": label_smoothing,
        "reduction": reduction,
        "weight": weight,
    }
    explained = chain(logits, labels, **options)
    want = oracle.cross_entropy(logits, labels, **options)
    assert agree(explained, within=1e-6) == pytest.approx(float(want), rel=1e-6)
    log_probs = oracle.log_softmax(logits, 1, temperature=temperature)
    np.testing.assert_allclose(explained["log_softmax"], log_probs.astype(float), atol=1e-6)
    np.testing.assert_allclose(explained["softmax"], np.exp(log_probs.astype(float)), atol=1e-6)


@pytest.mark.parametrize("row", dtypes.INTEGERS, ids=lambda row: row.name)
def test_labels_of_any_integer_type(row: dtypes.DType) -> None:
    expected = chain(LOGITS, LABELS)
    explained = chain(LOGITS, LABELS.astype(row.numpy))
    for name, array in expected.items():
        assert np.array_equal(explained[name], array), name


def test_logits_of_any_type(dtype: dtypes.DType) -> None:
    weight = zoo.cast(np.array([1, 0.5, 2, 0.25, 4]), dtype)
    explained = chain(zoo.cast(LOGITS.astype(np.float64), dtype), LABELS, weight=weight)
    assert explained["log_softmax"].dtype == dtype.result
    assert agree(explained) == pytest.approx(1.8945, abs=1e-4)


def test_one_vector_of_logits() -> None:
    explained = chain(LOGITS[2], np.array(3))
    assert agree(explained) == pytest.approx(0.9373, abs=1e-4)
    assert explained["one_hot"].tolist() == [0, 0, 0, 1, 0]
    assert explained["per_element"].shape == ()


def test_everything_ignored_is_nan_and_no_difference() -> None:
    explained = chain(LOGITS, np.full(4, 7), ignore_index=7)
    assert np.isnan(agree(explained))
    assert not explained["one_hot"].any()


def test_nothing_at_all_is_nan_and_no_difference() -> None:
    explained = chain(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    assert np.isnan(agree(explained))
    assert explained["one_hot"].shape == (0, 3)


def test_masked_logits_do_not_spoil_the_formula() -> None:
    logits = np.array([[0, -np.inf, 1], [2, 1, -np.inf]], np.float32)
    assert np.isfinite(agree(chain(logits, np.array([2, 0]))))
    assert agree(chain(logits, np.array([1, 0]))) == np.inf


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_routes_agree_at_the_ends_of_the_range(kind: Any, reduction: str) -> None:
    """A mean is finite where its sum is not, and a loss where it is not in base 2."""
    most = np.finfo(kind).max
    logits = np.array([[0.83, 0], [0, -0.9], [0.25, 0.5]], kind) * most
    for labels in (np.array([1, 1, 0]), np.array([0, 1, 1]), np.array([-100, 1, 0])):
        want = oracle.cross_entropy(logits, labels, reduction=reduction)
        loss = agree(chain(logits, labels, reduction=reduction))
        with np.errstate(over="ignore"):
            assert loss == pytest.approx(float(want.astype(kind)), rel=1e-6)
        weight = np.array([0.5, 0.125], kind)
        assert np.isfinite(agree(chain(logits, labels, weight=weight)))


def test_no_row_is_nothing_huge() -> None:
    # No logits at all, though each row would have a hundred million: nothing may be sized by that.
    shape = (0, 10**8)
    explained = chain(np.zeros(shape, np.float32), np.zeros(0, np.int64))
    assert explained["one_hot"].shape == shape


@pytest.mark.parametrize(
    ("labels", "field", "position"),
    [
        (np.array([1, 5, 3, 2]), "labels", (1,)),
        (np.array([1, 4, 3]), "labels", None),
        (np.full((4, 5), 0.2, np.float32), "labels", None),
        (
            np.full((4, 5), 0.2).astype(ml_dtypes.bfloat16).view(dtypes.BFLOAT16.numpy),
            "labels",
            None,
        ),
    ],
)
def test_what_cannot_be_explained_is_named(
    labels: Any, field: str, position: tuple[int, ...] | None
) -> None:
    with pytest.raises(InvalidInput) as caught:
        chain(LOGITS, labels)
    assert (caught.value.field, caught.value.position) == (field, position)


def test_a_weight_of_the_wrong_length_is_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        chain(LOGITS, LABELS, weight=np.ones(4, np.float32))
    assert caught.value.field == "weight"
