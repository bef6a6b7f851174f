"""Every odd array of the zoo, in every dtype, however it lies in memory."""

from __future__ import annotations

import functools
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import oracle, zoo
from tests.oracle import Array

Layout = Callable[[Array], Array]


@functools.cache
def logits_of(name: str, dtype: dtypes.DType) -> Array:
    return zoo.cast(zoo.ROWS[name], dtype)


@functools.cache
def true_log_softmax(name: str, dtype: dtypes.DType) -> Array:
    return oracle.log_softmax(logits_of(name, dtype))


def labels_of(name: str) -> Array:
    """A class per row, the last one's class ignored."""
    rows, classes = zoo.ROWS[name].shape
    labels: Array = np.random.default_rng(rows).integers(0, classes, rows)
    labels[-1] = -100
    return labels


@pytest.mark.parametrize("name", zoo.ROWS)
def test_odd_rows(name: str, dtype: dtypes.DType) -> None:
    """Classes last, first, and in the middle, so that each of the kernels' walks sees each row."""
    logits, truth, labels = logits_of(name, dtype), true_log_softmax(name, dtype), labels_of(name)
    losses = oracle.nll_loss(truth, labels, reduction="none")
    oracle.assert_close(kernels.log_softmax(logits), truth)
    oracle.assert_close(kernels.softmax(logits), np.exp(truth))
    oracle.assert_close(kernels.cross_entropy(logits, labels, reduction="none"), losses)

    columns = np.array(logits.T, order="C")
    oracle.assert_close(kernels.log_softmax(columns, class_axis=0), truth.T)
    oracle.assert_close(kernels.softmax(columns[None]), np.exp(truth.T[None]))
    across = kernels.cross_entropy(columns[None], labels[None], reduction="none")
    oracle.assert_close(across, losses[None])


@pytest.mark.parametrize("name", [name for name in zoo.ROWS if name != "around_3e38"])
def test_odd_rows_smoothed(name: str, dtype: dtypes.DType) -> None:
    """Sums over all classes; those of 3e38s may overflow or not, and both would be right."""
    logits, truth, labels = logits_of(name, dtype), true_log_softmax(name, dtype), labels_of(name)
    with np.errstate(invalid="ignore"):
        means = -truth.mean(1)
        losses = 0.9 * oracle.nll_loss(truth, labels, reduction="none") + 0.1 * means
    losses[labels == -100] = 0
    got = kernels.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")
    oracle.assert_close(got, losses)
    columns = np.array(logits.T, order="C")[None]
    got = kernels.cross_entropy(columns, labels[None], label_smoothing=0.1, reduction="none")
    oracle.assert_close(got, losses[None])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_layouts(dtype: dtypes.DType, layout: Layout, axis: int) -> None:
    """One array in every layout, with labels, weights and probabilities in that layout too."""
    rng = np.random.default_rng(axis)
    logits = zoo.cast(rng.normal(0, 3, (5, 33, 18)), dtype)
    shape = tuple(int(size) for size in np.delete(logits.shape, axis))
    labels = rng.integers(0, logits.shape[axis], shape).astype(np.int16)
    probabilities = zoo.cast(rng.random((5, 33, 18)), dtype)
    weight = zoo.cast(2 * rng.random((logits.shape[axis],)), dtype)

    lying = layout(logits)
    oracle.assert_close(
        kernels.log_softmax(lying, class_axis=axis), oracle.log_softmax(logits, axis)
    )
    oracle.assert_close(kernels.softmax(lying, class_axis=axis), oracle.softmax(logits, axis))
    for target in (labels, probabilities):
        for weights in (None, weight):
            got = kernels.cross_entropy(
                lying,
                layout(target),
                weight=None if weights is None else layout(weights),
                label_smoothing=0.1,
                reduction="none",
                class_axis=axis,
                check_probabilities=False,
            )
            want = oracle.cross_entropy(
                logits,
                target,
                weight=weights,
                label_smoothing=0.1,
                reduction="none",
                class_axis=axis,
            )
            oracle.assert_close(got, want, scale=logits.shape[axis])
    got = kernels.nll_loss(
        lying, layout(labels), weight=layout(weight), reduction="none", class_axis=axis
    )
    want = oracle.nll_loss(logits, labels, weight=weight, reduction="none", class_axis=axis)
    oracle.assert_close(got, want)


@pytest.mark.parametrize("other", zoo.LAYOUTS)
@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 7)], ids=str)
def test_logits_and_labels_in_different_layouts(
    layout: Layout, other: str, shape: tuple[int, ...]
) -> None:
    """Arrays that are walked together need not lie in the same order."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, shape).astype(np.float32)
    soft = rng.random(shape).astype(np.float32)
    for axis in range(len(shape)):
        hard = rng.integers(0, shape[axis], tuple(np.delete(shape, axis)))
        for labels in (soft, hard):
            got = kernels.cross_entropy(
                layout(logits),
                zoo.LAYOUTS[other](labels),
                class_axis=axis,
                reduction="none",
                check_probabilities=False,
            )
            want = oracle.cross_entropy(logits, labels, class_axis=axis, reduction="none")
            oracle.assert_close(got, want, scale=shape[axis])


def test_broadcast_arrays_have_no_strides_at_all(dtype: dtypes.DType) -> None:
    row = zoo.cast(np.random.default_rng(0).normal(0, 3, (1, 37, 1)), dtype)
    logits = np.broadcast_to(row, (50, 37, 20))
    labels = np.broadcast_to(np.array(5), (50, 20))
    got = kernels.cross_entropy(logits, labels, reduction="none")
    oracle.assert_close(got, oracle.cross_entropy(logits, labels, reduction="none"))
    constant = np.broadcast_to(row[0, :1, 0], (50, 37))
    oracle.assert_close(kernels.log_softmax(constant), oracle.log_softmax(constant))


def test_ml_dtypes_bfloat16_is_bfloat16() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (9, 21)).astype(ml_dtypes.bfloat16)
    weight = rng.random(21).astype(ml_dtypes.bfloat16)
    labels = rng.integers(0, 21, 9)
    got = kernels.cross_entropy(logits, labels, weight=weight)
    oracle.assert_close(got, oracle.cross_entropy(logits, labels, weight=weight))
    carried = logits.view(dtypes.BFLOAT16.numpy)
    assert kernels.log_softmax(logits).tobytes() == kernels.log_softmax(carried).tobytes()
    soft = rng.random((9, 21)).astype(ml_dtypes.bfloat16)
    got = kernels.cross_entropy(logits, soft, check_probabilities=False)
    oracle.assert_close(got, oracle.cross_entropy(logits, soft), scale=21)


@pytest.mark.parametrize("code", [">f4", ">f8", ">f2"])
def test_big_endian_logits_are_refused(code: str) -> None:
    """A kernel reads memory as it is: never the bytes the wrong way round."""
    logits = np.array([[1, 2, 3], [0.5, -1, 2]], code)
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.log_softmax(logits)
    assert caught.value.field == "logits"


def test_big_endian_labels_are_refused() -> None:
    logits = np.zeros((2, 300), np.float32)
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(logits, np.array([1, 256], ">i4"))
    assert caught.value.field == "labels"


def test_inputs_are_left_alone(dtype: dtypes.DType) -> None:
    rng = np.random.default_rng(2)
    logits = zoo.cast(rng.normal(0, 3, (40, 70)), dtype)
    labels = rng.integers(0, 70, 40)
    probabilities = zoo.cast(rng.random((40, 70)), dtype)
    weight = zoo.cast(rng.random(70), dtype)
    arrays = [logits, labels, probabilities, weight]
    before = [array.tobytes() for array in arrays]
    kernels.log_softmax(logits)
    kernels.softmax(logits)
    kernels.cross_entropy(logits, labels, weight=weight, label_smoothing=0.1)
    kernels.cross_entropy(logits, probabilities, weight=weight, check_probabilities=False)
    kernels.nll_loss(logits, labels, weight=weight)
    assert [array.tobytes() for array in arrays] == before
