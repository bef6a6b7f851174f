"""The gradient by the logits: finite differences, the closed form, and what holds of it always.

Float64 gradients are held to central differences of the oracle's loss, in extended precision with
steps of 1e-6, which leave 1e-12 of truncation and of rounding: 1e-9 is asked for. Of the closed
form, errors are relative to max(1, |value|), in units of ``oracle.TOLERANCE``, for the gradient of
the sum; the mean's is that over its denominator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import oracle, zoo
from tests.oracle import Array

Layout = Callable[[Array], Array]
KINDS = pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
STEP = np.longdouble(1e-6)


def gradient(logits: Array, labels: Array, **options: Any) -> Array:
    answer = kernels.cross_entropy(logits, labels, outputs=["gradient"], **options)
    assert list(answer) == ["gradient"]
    got: Array = answer["gradient"]
    return got


def differences(example: zoo.Example, reduction: str) -> Array:
    """Central differences of the oracle's loss by each logit."""
    logits, labels, options = example
    wide = logits.astype(np.longdouble)
    slopes = np.zeros(wide.shape, np.longdouble)
    for place in np.ndindex(*wide.shape):
        either = []
        for step in (STEP, -STEP):
            moved = wide.copy()
            moved[place] += step
            either.append(oracle.cross_entropy(moved, labels, reduction=reduction, **options))
        slopes[place] = (either[0] - either[1]) / (2 * STEP)
    return slopes


@KINDS
@pytest.mark.parametrize("options", zoo.OPTIONS)
def test_finite_differences(options: str, soft: bool) -> None:
    """Few classes and more than a register of them, contiguous and strided."""
    for shape, axis in (((4, 5), 1), ((2, 21), 1), ((2, 5, 3), 1)):
        example = zoo.example(shape, axis, dtypes.FLOAT64, options, soft=soft)
        for reduction in ("mean", "sum"):
            want = differences(example, reduction)
            got = gradient(example.logits, example.labels, reduction=reduction, **example.options)
            assert got.dtype == np.float64
            np.testing.assert_allclose(got, want.astype(np.float64), rtol=0, atol=1e-9)
            closed = oracle.gradient(*example[:2], reduction=reduction, **example.options)
            np.testing.assert_allclose(closed.astype(np.float64), want, rtol=0, atol=1e-9)


def hold(example: zoo.Example, layout: Layout = np.asarray) -> None:
    """``example``'s gradients, of every reduction, to the closed form."""
    logits, labels, options = example.lying(layout)
    total = oracle.gradient(*example[:2], reduction="sum", **example.options)
    scale = 2 * example.softened()
    for reduction in ("sum", "none"):
        got = gradient(logits, labels, reduction=reduction, **options)
        oracle.assert_close(got, total, scale)
    mean = oracle.gradient(*example[:2], reduction="mean", **example.options)
    at = np.unravel_index(np.abs(total).argmax(), total.shape)
    divisor = total[at] / mean[at]
    got = gradient(logits, labels, reduction="mean", **options)
    oracle.assert_close(got * got.dtype.type(divisor), total, scale)


@KINDS
@pytest.mark.parametrize("options", zoo.OPTIONS)
def test_closed_form(options: str, soft: bool, dtype: dtypes.DType) -> None:
    """Short rows, long ones of several blocks, single ones; planes of few classes and of many."""
    shapes = [((37, 10), 1), ((5, 300), 1), ((2, 9001), 1), ((129,), 0)]
    shapes += [((3, 19, 7, 11), 1), ((300, 21), 0), ((2, 3, 33, 6), 2), ((2, 3, 6, 33), -1)]
    for shape, axis in shapes:
        hold(zoo.example(shape, axis, dtype, options, soft=soft))


@KINDS
def test_closed_form_in_every_layout(layout: Layout, soft: bool, dtype: dtypes.DType) -> None:
    for shape, axis in [((9, 33), 1), ((5, 33, 6), 0), ((5, 33, 6), 1), ((2, 3, 4, 19), 3)]:
        hold(zoo.example(shape, axis, dtype, "all", soft=soft), layout)


@KINDS
def test_logits_and_labels_in_different_layouts(layout: Layout, soft: bool) -> None:
    for other in zoo.LAYOUTS.values():
        example = zoo.example((5, 7, 6), 1, dtypes.FLOAT32, "all", soft=soft)
        want = oracle.gradient(*example[:2], reduction="sum", **example.options)
        labels = other(example.labels)
        answer = kernels.cross_entropy(
            layout(example.logits), labels, reduction="sum", outputs=["log_probs", "gradient"],
            **example.options,
        )  # fmt: skip
        oracle.assert_close(answer["gradient"], want, 2 * example.softened())
        log_probs = oracle.log_softmax(example.logits, 1, temperature=0.6, softcap=3.0)
        oracle.assert_close(answer["log_probs"], log_probs, 2 * example.softened())


def test_softmax_less_one_hot() -> None:
    """The formula that everyone knows."""
    logits, labels, _ = zoo.example((40, 9), 1, dtypes.FLOAT64, "plain")
    kept = labels != -100
    want = np.where(kept[:, None], kernels.softmax(logits) - np.eye(9)[np.maximum(labels, 0)], 0)
    got = gradient(logits, labels, reduction="sum")
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-15)
    got = gradient(logits, labels, reduction="mean")
    np.testing.assert_allclose(got, want / kept.sum(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_shift_of_all_logits_changes_nothing(axis: int, dtype: dtypes.DType) -> None:
    """So each position's gradient sums to 0 (but for z-loss, which is there to hold the level)."""
    for shape in ((60, 19), (20, 700)):
        logits, labels, options = zoo.example(shape[:: 2 * axis - 1], axis, dtype, "all")
        options = options | {"z_loss": 0.0, "softcap": None}
        got = gradient(logits, labels, reduction="sum", **options)
        sums = got.sum(axis, dtype=np.float64)
        tolerance = 40 * oracle.TOLERANCE[got.dtype]
        np.testing.assert_allclose(sums, 0, rtol=0, atol=tolerance)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("classes", [3, 40, 700])
def test_ignored_rows_have_none_whatever_is_in_them(
    classes: int, axis: int, dtype: dtypes.DType
) -> None:
    """Nor does what came before in the same place of a tile, of which 600 rows make some."""
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, 3, (600, classes))
    kind = np.arange(600) // 3 % 7
    for number, value in enumerate([np.nan, np.inf, -np.inf, 3e38], 1):
        logits[kind == number] = value
    logits[kind == 5, classes // 2] = np.nan
    labels = rng.integers(0, classes, 600)
    labels[::3] = -100
    ignored = labels == -100
    lying = zoo.cast(logits if axis else np.ascontiguousarray(logits.T), dtype)
    for options in ({}, {"label_smoothing": 0.1}, {"z_loss": 0.1}):
        arguments: dict[str, Any] = {"class_axis": axis, "reduction": "sum", **options}
        got = np.moveaxis(gradient(lying, labels, **arguments), axis, 1)
        with np.errstate(invalid="ignore"):
            want = np.moveaxis(oracle.gradient(lying, labels, **arguments), axis, 1)
        assert not got[ignored].any()
        tame = ~np.isin(kind, [4]) | ignored  # 600 times z * 3e38 may be anything
        oracle.assert_close(got[tame], want[tame])


def test_masked_classes_have_none(dtype: dtypes.DType) -> None:
    logits = np.random.default_rng(4).normal(0, 3, (30, 40))
    logits[:, 1::2] = -np.inf
    labels = np.full(30, 4)
    for axis in (1, 0):
        lying = zoo.cast(logits if axis else logits.T, dtype)
        got = np.moveaxis(gradient(lying, labels, class_axis=axis), axis, 1)
        assert not got[:, 1::2].any()
        assert got[:, ::2].all()


def test_an_impossible_label_costs_one() -> None:
    """A label whose class is masked: the loss is inf, its slope is that of any hopeless label."""
    logits = np.array([[0.0, -np.inf, 0.0]], np.float32)
    assert gradient(logits, np.array([1])).tolist() == [[0.5, -1, 0.5]]


@KINDS
def test_probabilities_that_are_the_softmax_leave_nothing(soft: bool) -> None:
    logits = np.random.default_rng(5).normal(0, 3, (20, 31))
    labels = kernels.softmax(logits)
    if not soft:  # a certain hit
        logits[np.arange(20), np.arange(20)] = 900.0
        labels = np.arange(20)
    np.testing.assert_allclose(gradient(logits, labels), 0, rtol=0, atol=1e-16)


@pytest.mark.parametrize("empty", ["nan", "zero"])
def test_mean_of_nothing(empty: str, dtype: dtypes.DType) -> None:
    logits = zoo.cast(np.ones((3, 5)), dtype)
    ignored, zeros = np.full(3, -100), np.zeros(3, int)
    assert not gradient(logits, ignored, empty=empty).any()
    weight = np.zeros(5)
    weighed = gradient(logits, zeros, weight=weight, empty=empty)
    if empty == "zero":
        assert not weighed.any()
    else:
        assert np.isnan(weighed).all()
    for shape in ((0, 5), (2, 5, 0)):
        nothing = zoo.cast(np.ones(shape), dtype)
        labels = np.zeros((shape[0], *shape[2:]), int)
        got = gradient(nothing, labels, empty=empty)
        assert (got.shape, got.dtype) == (shape, dtype.result)


def test_mean_of_nothing_may_be_an_error() -> None:
    with pytest.raises(kernels.InvalidInput):
        gradient(np.ones((3, 5)), np.full(3, -100), empty="error")


def test_impossible_labels_are_named() -> None:
    labels = np.zeros((2, 40), int)
    labels[1, 7] = 3
    for reduction in ("none", "mean", "sum"):
        with pytest.raises(kernels.InvalidInput) as caught:
            gradient(np.zeros((2, 3, 40), np.float32), labels, reduction=reduction)
        assert (caught.value.field, caught.value.position) == ("labels", (1, 7))


def test_the_loss_is_the_same_beside_its_gradient(dtype: dtypes.DType) -> None:
    for shape in ((300, 10), (7, 900), (3, 19, 40)):
        logits, labels, options = zoo.example(shape, 1, dtype, "all")
        for reduction in ("mean", "sum"):
            alone = kernels.cross_entropy(logits, labels, reduction=reduction, **options)
            both = kernels.cross_entropy(
                logits, labels, reduction=reduction, outputs=["gradient", "loss"], **options
            )
            assert both["loss"].tobytes() == alone.tobytes()


@pytest.mark.parametrize("outputs", [["gradient"], ["gradient", "entropy"], zoo.outputs()])
@pytest.mark.parametrize("axis", [0, 1])
def test_huge_logits_beside_other_outputs(axis: int, outputs: list[str]) -> None:
    """Such rows are done last, in float64, from scratch that the other outputs must leave alone."""
    rows = np.array([[3e38, -3e38, 3e38], [1e30, 0, -1e30], [0, 1, 0]] * 7, np.float32)
    labels = np.array([0, 2, 1] * 7)
    logits = rows if axis else np.array(rows.T, order="C")
    got = kernels.cross_entropy(logits, labels, class_axis=axis, reduction="sum", outputs=outputs)
    gradient = got["gradient"] if axis else got["gradient"].T
    p = np.exp(rows[2].astype(np.float64))
    want = [[-0.5, 0, 0.5], [1, 0, -1], p / p.sum() - [0, 1, 0]] * 7
    np.testing.assert_allclose(gradient, want, atol=1e-6)


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_ignored_nans_have_none_beside_other_outputs(axis: int, softcap: float | None) -> None:
    rows = np.array([[np.nan, 1, 2], [np.inf, 0, 1], [0, 1, 0]] * 7, np.float32)
    logits = rows if axis else np.array(rows.T, order="C")
    got = kernels.cross_entropy(
        logits, np.full(21, -100), class_axis=axis, softcap=softcap, outputs=zoo.outputs()
    )
    assert (kernels.cross_entropy(rows, np.full(21, -100), reduction="sum")) == 0
    empty = kernels.cross_entropy(
        logits,
        np.full(21, -100),
        class_axis=axis,
        softcap=softcap,
        reduction="sum",
        outputs=zoo.outputs(),
    )
    assert (empty["gradient"] == 0).all()
    assert np.isnan(got["loss"])
