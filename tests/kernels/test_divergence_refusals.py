"""Divergences that cannot be computed: each error says what is wrong, where, and what is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernels
from tests.oracle import Array

X = np.zeros((2, 3, 5))  # logits, the classes last
LOG_PROBS = np.full((2, 3, 5), np.log(0.2))
TOP = np.tile(np.arange(2), (2, 3, 1))
LOGS = np.full((2, 3, 2), np.log(0.25))
SPARSE: dict[str, Any] = {"target_classes": TOP, "target_top_log_probs": LOGS}


def changed(array: Array, at: tuple[int, ...], value: float) -> Array:
    array = array.copy()
    array[at] = value
    return array


def sparse(**changes: Any) -> dict[str, Any]:
    return {**SPARSE, **changes}


# Arguments; the field at fault, its position, and words of the message.
CASES: dict[str, tuple[dict[str, Any], str, tuple[int, ...] | None, str]] = {
    "no targets": ({}, "target_logits", None, "there are no targets"),
    "two dense": (
        {"target_logits": X, "target_log_probs": LOG_PROBS},
        "target_logits",
        None,
        "takes one teacher",
    ),
    "dense and sparse": (
        sparse(target_logits=X),
        "target_logits",
        None,
        "there are target_logits and target_classes and target_top_log_probs",
    ),
    "half a sparse one": (
        {"target_classes": TOP},
        "target_top_log_probs",
        None,
        "target_top_log_probs is missing",
    ),
    "another shape": (
        {"target_logits": X[:, :2]},
        "target_logits",
        None,
        r"have shape \(2, 2, 5\); they must have that of the logits, \(2, 3, 5\)",
    ),
    "some classes alone": (
        {"target_log_probs": X[..., :2]},
        "target_log_probs",
        None,
        "pass target_classes",
    ),
    "integers": ({"target_logits": X.astype(int)}, "target_logits", None, "not int64"),
    "no distribution": (
        {"target_log_probs": changed(LOG_PROBS, (1, 2, 0), 0.0)},
        "target_log_probs",
        (1, 2),
        r"target_log_probs\[1, 2, :\] .* sum to 1.8; they must sum to 1",
    ),
    "NaN in log-probabilities": (
        {"target_log_probs": changed(LOG_PROBS, (0, 1, 3), np.nan)},
        "target_log_probs",
        (0, 1),
        "sum to nan",
    ),
    "logits given as log-probabilities": (
        {"target_log_probs": X, "temperature": 2.0},
        "target_log_probs",
        (0, 0),
        "logits are target_logits",
    ),
    "a class out of range": (
        sparse(target_classes=changed(TOP, (1, 0, 1), 5)),
        "target_classes",
        (1, 0, 1),
        "is 5; with 5 classes it must be from 0 to 4, or -1 for padding",
    ),
    "a negative class": (
        sparse(target_classes=changed(TOP, (0, 2, 0), -2)),
        "target_classes",
        (0, 2, 0),
        "is -2",
    ),
    "the largest class of uint64": (
        sparse(target_classes=np.full((2, 3, 2), 2**64 - 1, np.uint64)),
        "target_classes",
        (0, 0, 0),
        "from 0 to 4",
    ),
    "a repeated class": (
        sparse(target_classes=changed(TOP, (0, 1, 1), 0)),
        "target_classes",
        (0, 1, 1),
        r"is 0, as is target_classes\[0, 1, 0\]",
    ),
    "more classes than there are": (
        {
            "target_classes": np.tile(np.arange(6) % 5, (2, 3, 1)),
            "target_top_log_probs": np.full((2, 3, 6), -9.0),
        },
        "target_classes",
        (0, 0, 5),
        r"is 0, as is target_classes\[0, 0, 0\]",
    ),
    "a mass above 1": (
        sparse(target_top_log_probs=changed(LOGS, (1, 1, 0), 0.0)),
        "target_top_log_probs",
        (1, 1),
        "sum to 1.25; they must sum to at most 1",
    ),
    "NaN in a sparse teacher": (
        sparse(target_top_log_probs=changed(LOGS, (1, 1, 0), np.nan)),
        "target_top_log_probs",
        (1, 1),
        "sum to nan",
    ),
    "classes that are floats": (
        sparse(target_classes=TOP.astype(float)),
        "target_classes",
        None,
        "must be integers",
    ),
    "log-probabilities that are integers": (
        sparse(target_top_log_probs=TOP),
        "target_top_log_probs",
        None,
        "must be floating-point",
    ),
    "sparse positions": (
        {"target_classes": TOP[:1], "target_top_log_probs": LOGS[:1]},
        "target_classes",
        None,
        r"must be of shape \(2, 3, 'K'\)",
    ),
    "sparse shapes that differ": (
        sparse(target_top_log_probs=LOGS[..., :1]),
        "target_top_log_probs",
        None,
        "must have that of target_classes",
    ),
    "the temperature of a rest": (
        sparse(temperature=2.0),
        "target_temperature",
        None,
        "target_temperature=1 takes them as they are",
    ),
    "beta of 1": (
        {"target_logits": X, "direction": "jsd", "beta": 1.0},
        "beta",
        None,
        "between 0 and 1",
    ),
    "a direction": (
        {"target_logits": X, "direction": "sideways"},
        "direction",
        None,
        '"forward", "reverse", "jsd"',
    ),
    "a tail": (sparse(tail="cut"), "tail", None, '"bucket", "ignore", "renormalize"'),
    "a mask of another shape": (
        {"target_logits": X, "mask": np.ones((2, 4), bool)},
        "mask",
        None,
        r"so shape \(2, 3\)",
    ),
    "a mask of floats": (
        {"target_logits": X, "mask": np.ones((2, 3))},
        "mask",
        None,
        "must be integers or Boolean, .* not float64",
    ),
    "weights of classes": (
        {"target_logits": X, "weight": np.ones(5)},
        "weight",
        None,
        r"so shape \(2, 3\)",
    ),
    "an infinite weight": (
        {"target_logits": X, "weight": changed(np.ones((2, 3)), (1, 0), np.inf)},
        "weight",
        (1, 0),
        "must be finite",
    ),
    "a shift beyond the length": (
        {"target_logits": X, "shift": 4},
        "shift",
        None,
        "must be from -3 to 3",
    ),
    "a label out of range": (
        {"target_logits": X, "labels": changed(np.zeros((2, 3), int), (0, 2), 5)},
        "labels",
        (0, 2),
        "with 5 classes",
    ),
    "labels of another shape": (
        {"target_logits": X, "labels": np.zeros(3, int)},
        "labels",
        None,
        r"so shape \(2, 3\)",
    ),
    "labels that are no indices": (
        {"target_logits": X, "labels": np.zeros((2, 3))},
        "labels",
        None,
        "class indices",
    ),
    "an output of the label without labels": (
        {"target_logits": X, "outputs": ["delta_p"]},
        "labels",
        None,
        "no labels are given",
    ),
    "an unknown output": (
        {"target_logits": X, "outputs": ["entropy"]},
        "outputs",
        None,
        "none of loss, per_element",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str) -> None:
    arguments, field, position, words = CASES[case]
    with pytest.raises(kernels.InvalidInput, match=words) as caught:
        kernels.kl_div(X, class_axis=-1, **arguments)
    assert caught.value.field == field
    assert caught.value.position == position


def test_the_first_wrong_position_is_named() -> None:
    targets = LOG_PROBS.copy()
    targets[0, 1], targets[1, 1] = 1.0, 2.0
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.kl_div(X, target_log_probs=targets, class_axis=-1)
    assert caught.value.position == (0, 1)


def test_unchecked_probabilities_are_taken_as_they_are() -> None:
    """Dense ones are scaled to sum to 1; sparse ones above 1 as well, for the bucket alone."""
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(0, 1, (2, 2, 3, 5))
    options: dict[str, Any] = {"class_axis": -1, "check_probabilities": False}
    got = kernels.kl_div(student, target_log_probs=teacher, **options)
    assert got == kernels.kl_div(student, teacher, class_axis=-1)
    heavy = sparse(target_top_log_probs=np.zeros((2, 3, 2)))
    whole = sparse(target_top_log_probs=np.full((2, 3, 2), np.log(0.5)))
    assert kernels.kl_div(student, **heavy, **options) == pytest.approx(
        float(kernels.kl_div(student, **whole, **options)), rel=1e-14
    )


def test_rounded_log_probs_are_taken() -> None:
    """Sixteen bits of a log-probability move the sum; that is not refused, and not in the way."""
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(0, 3, (2, 20, 1000))
    log_probs = teacher - np.log(np.exp(teacher).sum(1, keepdims=True))
    for kind, most in ((np.float16, 2e-2), (np.float32, 1e-6)):
        got = kernels.kl_div(student, target_log_probs=log_probs.astype(kind))
        assert got == pytest.approx(float(kernels.kl_div(student, teacher)), rel=most)
