"""Labels that are class probabilities: what is refused where they are none, and what is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import oracle, zoo
from tests.zoo import Array

# Each takes another way through the kernels: short and long rows, planes, and one row alone.
SHAPES = pytest.mark.parametrize(
    ("shape", "axis"),
    [((6, 5), 1), ((3, 300), 1), ((2, 5, 7), 1), ((5, 9), 0), ((5,), 0), ((2, 3, 4), -1)],
    ids=str,
)
OFF: dict[str, Any] = {"check_probabilities": False}


def distributions(shape: tuple[int, ...], axis: int, seed: int = 0) -> tuple[Array, Array]:
    """Logits, and probabilities whose sum is 1."""
    rng = np.random.default_rng(seed)
    shares = rng.random(shape)
    return rng.normal(0, 3, shape), shares / shares.sum(axis, keepdims=True)


def spoiled(soft: Array, axis: int, change: Any) -> tuple[Array, tuple[int, ...]]:
    """``soft`` with its last row but one changed (or its only one), and where that is."""
    rows = np.moveaxis(soft.copy(), axis, -1)
    flat = max(0, int(np.prod(rows.shape[:-1])) - 2)
    index = tuple(int(i) for i in np.unravel_index(flat, rows.shape[:-1]))
    rows[index] = change(rows[index])
    return np.moveaxis(rows, -1, axis), index


def refusal(logits: Array, labels: Array, **options: Any) -> kernels.InvalidInput:
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(logits, labels, **options)
    assert caught.value.field == "labels"
    return caught.value


def negative(row: Array) -> Array:
    row[:2] = -0.25, row[0] + row[1] + 0.25  # the sum is what it was
    return row


CHANGES: dict[str, tuple[Any, str]] = {
    "logits": (lambda row: 5 + np.arange(row.size), "sums to"),
    "negative": (negative, "has -0.25 for class 0"),
    "more": (lambda row: row * 1.5, "sums to 1."),
    "less": (lambda row: row * 0.5, "sums to 0."),
    "nothing": (lambda row: row * 0, "sample_weight 0 leaves a row out"),
    "NaN": (lambda row: row * np.nan, "sums to nan"),
    "infinite": (lambda row: row * np.inf, "sums to inf"),
}


@SHAPES
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_no_distribution_is_named(
    shape: tuple[int, ...], axis: int, change: str, dtype: dtypes.DType
) -> None:
    logits, soft = distributions(shape, axis)
    wrong, index = spoiled(soft, axis, CHANGES[change][0])
    logits, right, wrong = (zoo.cast(array, dtype) for array in (logits, soft, wrong))
    for options in ({}, {"weight": np.arange(shape[axis]) / 7}, {"label_smoothing": 0.5}):
        kernels.cross_entropy(logits, right, class_axis=axis, **options)
        error = refusal(logits, wrong, class_axis=axis, **options)
        assert error.position == index
        where = list(map(str, index))
        where.insert(axis % len(shape), ":")
        assert error.message.startswith(f"labels[{', '.join(where)}] ")
        assert CHANGES[change][1] in error.message
        assert "check_probabilities=false" in error.message
        kernels.cross_entropy(logits, wrong, class_axis=axis, **options, **OFF)


def test_teacher_logits_are_told_what_to_do() -> None:
    rng = np.random.default_rng(1)
    student, teacher = rng.normal(0, 4, (2, 32, 50)).astype(np.float32)
    message = refusal(student, teacher).message
    assert "softmax" in message
    assert "labels[0, :]" in message
    kernels.cross_entropy(student, kernels.softmax(teacher))
    got = kernels.cross_entropy(student, teacher, **OFF)
    oracle.assert_close(got, oracle.cross_entropy(student, teacher), scale=50)


@pytest.mark.parametrize("outputs", [["gradient"], ["entropy", "log_probs"], ["loss"]], ids=str)
def test_they_are_looked_at_for_every_output(outputs: list[str]) -> None:
    logits, soft = distributions((9, 4), 1)
    wrong, index = spoiled(soft, 1, lambda row: row + 1)
    assert refusal(logits, wrong, outputs=outputs).position == index
    assert refusal(logits, soft * 2, outputs=outputs).position == (0,)


def test_odd_logits_do_not_hide_them() -> None:
    """Rows that go to ``careful``: NaN, infinities, logits of some millions."""
    logits, soft = distributions((8, 4), 1)
    for value in (np.nan, np.inf, -np.inf, 1e7, -1e7):
        odd = logits.copy()
        odd[:, 1] = value
        wrong, index = spoiled(soft, 1, lambda row: row * 3)
        for axis, turned in ((1, odd), (0, np.ascontiguousarray(odd.T))):
            labels = wrong if axis else np.ascontiguousarray(wrong.T)
            assert refusal(turned, labels, class_axis=axis).position == index
            right = soft if axis else np.ascontiguousarray(soft.T)
            kernels.cross_entropy(turned, right, class_axis=axis)


def test_rows_that_weigh_nothing_may_be_anything() -> None:
    logits, soft = distributions((4, 3, 2), 1)
    wrong, index = spoiled(soft, 1, lambda row: row * 0)
    weights = np.ones((4, 2))
    refusal(logits, wrong, sample_weight=weights)
    weights[index] = 0.0
    got = kernels.cross_entropy(logits, wrong, sample_weight=weights)
    kept = kernels.cross_entropy(logits, soft, sample_weight=weights)
    assert got == kept


@pytest.mark.parametrize("classes", [2, 10, 300, 131072])
@pytest.mark.parametrize("kind", ["even", "random", "peaked"])
def test_what_was_rounded_to_16_bits_is_taken(classes: int, kind: str) -> None:
    """Whatever their dtype is by now."""
    rng = np.random.default_rng(classes)
    gaps = {"even": 0.0, "random": 2.0, "peaked": 12.0}[kind]
    exact = np.exp(gaps * rng.normal(0, 1, (2, classes)))
    exact /= exact.sum(1, keepdims=True)
    for narrow in (dtypes.FLOAT16, dtypes.BFLOAT16):
        once = zoo.cast(exact, narrow)
        # A softmax in that type: exponentials, their sum and the quotients are rounded.
        powers = oracle.widen(zoo.cast(exact * 3.0, narrow))
        total = oracle.widen(zoo.cast(powers.sum(1, keepdims=True), narrow))
        thrice = zoo.cast(powers / total, narrow)
        for soft in (once, thrice):
            for dtype in (narrow, dtypes.FLOAT32):
                labels = zoo.cast(oracle.widen(soft), dtype)
                kernels.cross_entropy(zoo.cast(np.zeros((2, classes)), dtype), labels)


def test_what_people_write_is_taken() -> None:
    for row in ([0.33, 0.33, 0.33], [1 / 3] * 3, [0.0, -0.0, 1.0], [0.3333, 0.6667, 0]):
        kernels.cross_entropy(np.zeros((1, 3), np.float32), np.array([row], np.float32))


@pytest.mark.parametrize("value", ["false", 0, None, 1.0], ids=repr)
def test_it_is_true_or_false(value: Any) -> None:
    logits, soft = distributions((4, 3), 1)
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(logits, soft, check_probabilities=value)
    assert caught.value.field == "check_probabilities"
    numpys: Any = np.True_
    kernels.cross_entropy(logits, soft, check_probabilities=numpys)


def test_an_accumulator_looks_at_them_and_adds_nothing() -> None:
    logits, soft = distributions((8, 5), 1)
    whole, parts = kernels.cross_entropy(logits, soft), kernels.LossAccumulator()
    parts.update(logits[:4], soft[:4])
    with pytest.raises(kernels.InvalidInput) as caught:
        parts.update(logits, soft * 2)
    assert caught.value.position == (0,)
    parts.update(logits[4:], soft[4:])
    assert parts.result() == whole
    unchecked = kernels.LossAccumulator(**OFF)
    unchecked.update(logits, soft * 2)
