"""Errors of tensors that do not fit name the axis, shape, dtype or argument that would."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import kernels


def floats(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def indices(*shape: int) -> Any:
    return np.zeros(shape, np.int64)


def refusal(function: Any, *arguments: Any, **options: Any) -> kernels.InvalidInput:
    with pytest.raises(kernels.InvalidInput) as caught:
        function(*arguments, **options)
    return caught.value


SHAPES: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "language model": (floats(4, 8, 32), indices(4, 8), {}, "they fit with class_axis=-1"),
    "classes first": (floats(7, 40), indices(40), {}, "they fit with class_axis=0"),
    "channels last": (floats(2, 4, 5, 3), indices(2, 4, 5), {}, "class_axis=-1"),
    "channels first": (floats(2, 3, 4, 5), indices(2, 4, 5), {"class_axis": -1}, "class_axis=1"),
    "flat labels": (
        floats(4, 8, 32), indices(32), {"class_axis": -1}, "they fit in shape (4, 8)",
    ),
    "flat labels, classes last": (
        floats(4, 8, 32), indices(32), {}, "they fit in shape (4, 8), with class_axis=-1",
    ),
    "flat logits": (floats(32, 10), indices(4, 8), {}, "they fit in shape (32,)"),
    "a column": (floats(4, 10), indices(4, 1), {}, "they fit in shape (4,)"),
    "a row": (floats(10), indices(1), {}, "they fit in shape ()"),
    "probabilities last": (
        floats(2, 3, 4, 5), floats(2, 4, 5, 3), {}, "move the axis of their classes, 3, to 1",
    ),
    "flat probabilities": (floats(4, 3), floats(12), {}, "they fit in shape (4, 3)"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_labels_of_another_shape(name: str) -> None:
    logits, labels, options, advice = SHAPES[name]
    for function in (kernels.cross_entropy, kernels.nll_loss):
        error = refusal(function, logits, labels, **options)
        assert error.field == "labels"
        assert error.message.endswith(advice) or f"{advice}, or" in error.message
        assert str(labels.shape) in error.message
    message = refusal(kernels.nll_loss, logits, labels, **options).message
    assert "log_probs of shape" in message


def test_the_advice_is_right() -> None:
    kernels.cross_entropy(floats(4, 8, 32), indices(4, 8), class_axis=-1)
    kernels.cross_entropy(floats(4, 8, 32), indices(32).reshape(4, 8), class_axis=-1)
    kernels.cross_entropy(floats(7, 40), indices(40), class_axis=0)
    soft = np.full((2, 4, 5, 3), 1 / 3, np.float32)
    kernels.cross_entropy(floats(2, 3, 4, 5), np.moveaxis(soft, 3, 1))
    kernels.cross_entropy(np.moveaxis(floats(2, 3, 4, 5), 1, 3), soft, class_axis=-1)


def test_no_advice_where_nothing_would_fit() -> None:
    for labels in (indices(3), indices(2, 3), floats(5, 5), floats(3, 4, 5)):
        message = refusal(kernels.cross_entropy, floats(4, 5), labels).message
        assert message.endswith("or class probabilities of shape (4, 5)")


@pytest.mark.parametrize("integer", [np.int64, np.uint8])
def test_integers_in_the_logits_shape_are_told_both_readings(integer: Any) -> None:
    trap = np.array([1, 0, 1], integer)
    for function in (kernels.cross_entropy, kernels.nll_loss):
        message = refusal(function, np.array([0.3, -1.2, 2.0]), trap).message
        assert "Integers are class indices, never probabilities" in message
        assert "3 of them take" in message
        assert "shape (3, classes)" in message
        assert "class probabilities are floats" in message
        message = refusal(function, floats(2, 3), np.eye(3, dtype=integer)[:2]).message
        assert "class indices have the shape (2,)" in message
        assert "class probabilities are floats" in message


BIG = ">f4", ">f8", ">i4", ">i8", ">f2"
SWAP = "pass array.astype(array.dtype.newbyteorder('<'))"


@pytest.mark.parametrize("dtype", BIG)
def test_big_endian_arrays_are_told_how_to_swap(dtype: str) -> None:
    whole = np.dtype(dtype).kind == "i"
    given = {
        "logits": (np.zeros((2, 3), dtype), [0, 1], {}),
        "labels": (floats(2, 3), np.zeros(2 if whole else (2, 3), dtype), {}),
        "weight": (floats(2, 3), [0, 1], {"weight": np.ones(3, dtype)}),
        "sample_weight": (floats(2, 3), [0, 1], {"sample_weight": np.ones(2, dtype)}),
    }
    for name, (logits, labels, options) in given.items():
        error = refusal(kernels.cross_entropy, logits, labels, **options)
        assert error.field == name
        assert SWAP in error.message
    assert SWAP in refusal(kernels.softmax, np.zeros(3, dtype)).message


TYPES: dict[str, tuple[Any, Any, dict[str, Any], str, str]] = {
    "boolean weights": (
        floats(2, 3), [0, 1], {"weight": np.array([True, False, True])}, "weight",
        "floating-point or integers, not bool: pass array.astype(np.uint8)",
    ),
    "boolean sample weights": (
        floats(2, 3), [0, 1], {"sample_weight": np.array([True, False])}, "sample_weight",
        "floating-point or integers, not bool: pass array.astype(np.uint8)",
    ),
    "complex weights": (
        floats(2, 3), [0, 1], {"weight": np.ones(3, complex)}, "weight",
        "floating-point or integers, not complex128",
    ),
    "boolean labels": (
        floats(2, 3), np.array([True, False]), {}, "labels", "pass array.astype(np.int64)",
    ),
    "boolean one-hot": (
        floats(2, 3), np.eye(3, dtype=bool)[:2], {}, "labels", "pass array.astype(np.float32)",
    ),
    "float labels": (
        floats(2, 3), np.array([0.0, 1.0]), {}, "labels",
        "not float64: pass array.astype(np.int64); class probabilities have the logits' shape",
    ),
    "integer logits": (
        np.zeros((2, 3), int), [0, 1], {}, "logits", "pass array.astype(np.float32)",
    ),
    "bits": (np.zeros((2, 3), np.uint16), [0, 1], {}, "logits", "say logits_dtype"),
    "exchanged": (indices(2), floats(2, 3), {}, "logits", "look exchanged"),
    "exchanged, classes last": (indices(2, 4), floats(2, 4, 3), {}, "logits", "look exchanged"),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_another_type(name: str) -> None:
    logits, labels, options, field, advice = TYPES[name]
    error = refusal(kernels.cross_entropy, logits, labels, **options)
    assert error.field == field
    assert advice in error.message


def test_a_label_that_is_no_integer_is_named() -> None:
    labels = np.array([[0, 1.5], [np.nan, 1]])
    error = refusal(kernels.cross_entropy, floats(2, 3, 2), labels)
    assert error.position == (0, 1)
    assert "labels[0, 1] is 1.5: pass" in error.message


def test_bfloat16_labels_are_told_the_same() -> None:
    labels = np.zeros(2, ml_dtypes.bfloat16)
    assert "np.int64" in refusal(kernels.cross_entropy, floats(2, 3), labels).message


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ({"weight": np.ones(2)}, ": one for each label is sample_weight"),
        ({"sample_weight": np.ones(3)}, ": one for each class is weight"),
        ({"sample_weight": np.ones((2, 1))}, ": it fits in shape (2,)"),
        ({"weight": np.ones((1, 3))}, ": it fits in shape (3,)"),
        ({"weight": np.ones(4)}, "so shape (3,)"),
        ({"sample_weight": np.ones(())}, "so shape (2,)"),
    ],
    ids=str,
)
def test_weights_of_another_shape(given: dict[str, Any], advice: str) -> None:
    error = refusal(kernels.cross_entropy, floats(2, 3), [0, 1], **given)
    assert error.field == next(iter(given))
    assert error.message.endswith(advice)


def test_weights_that_fit_another_class_axis() -> None:
    error = refusal(kernels.cross_entropy, floats(4, 8, 8), indices(4, 8), weight=np.ones(4))
    assert error.message.endswith(": it fits with class_axis=0")


@pytest.mark.parametrize(
    ("classes", "label", "advice"),
    [
        (3, -1, "ignore_index=-1 leaves such labels out"),
        (3, 255, "ignore_index=255 leaves such labels out"),
        (3, 3, "the first class is 0"),
        (1, 1, "[0, logit]"),
        (3, 7, "or ignore_index (-100)"),
    ],
)
def test_labels_that_are_no_class(classes: int, label: int, advice: str) -> None:
    error = refusal(kernels.cross_entropy, floats(2, classes), [0, label])
    assert (error.field, error.position) == ("labels", (1,))
    assert error.message.endswith(advice)
