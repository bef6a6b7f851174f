"""Gradients of divergences by the logits: finite differences, closed forms, reductions.

Central differences of the oracle in extended precision, with steps of 1e-6, leave 1e-11; float32
gradients are held to those of float64, within 2e-6 of the largest.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import kernels
from tests import divergence_oracle, oracle
from tests.oracle import Array

DIRECTIONS = ("forward", "reverse", "jsd")
TAILS = ("bucket", "ignore", "renormalize")


def gradient(logits: Array, *, reduction: str = "sum", **options: Any) -> Array:
    answer = kernels.kl_div(logits, outputs=["gradient"], reduction=reduction, **options)
    got: Array = answer["gradient"]
    return got


def case(seed: int = 0, shape: tuple[int, int] = (4, 21)) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(0, 2, (2, *shape))
    student[1, 3] = teacher[1, 3] = -np.inf
    return student, teacher


def sparse(teacher: Array, top: int = 4) -> tuple[Array, Array]:
    """Likeliest classes and their log-probabilities, in some order and with a padded one."""
    log_probs = oracle.log_softmax(teacher).astype(np.float64)
    classes = np.argsort(-log_probs, axis=1)[:, :top][:, ::-1].copy()
    chosen = np.take_along_axis(log_probs, classes, 1)
    classes[0, 1] = -1
    return classes, chosen


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_dense_by_differences_and_in_closed_form(direction: str) -> None:
    student, teacher = case()
    options: dict[str, Any] = {"direction": direction, "beta": 0.3, "temperature": 1.5}
    want = divergence_oracle.gradient(student, 1e-6, targets=teacher, **options)
    want = np.nan_to_num(want.astype(np.float64))  # of a logit of -inf
    got = gradient(student, target_logits=teacher, **options)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)
    s, t = (np.exp(oracle.log_softmax(x, temperature=1.5)) for x in (student, teacher))
    if direction == "forward":
        np.testing.assert_allclose(got, ((s - t) / 1.5).astype(np.float64), atol=1e-15)
    narrow = gradient(
        student.astype(np.float32), target_logits=teacher.astype(np.float32), **options
    )
    np.testing.assert_allclose(narrow, got, rtol=0, atol=2e-6 * np.abs(got).max())


@pytest.mark.parametrize(("direction", "tail"), list(product(DIRECTIONS, TAILS)))
def test_sparse_by_differences(direction: str, tail: str) -> None:
    student, teacher = case(1)
    classes, log_probs = sparse(teacher)
    options: dict[str, Any] = {
        "direction": direction,
        "beta": 0.3,
        "tail": tail,
        "temperature": 1.5,
        "target_temperature": 2.0 if tail == "renormalize" else 1.0,
    }
    want = divergence_oracle.gradient(student, 1e-6, top=(classes, log_probs), **options)
    want = np.nan_to_num(want.astype(np.float64))
    given: dict[str, Any] = {"target_classes": classes, "target_top_log_probs": log_probs}
    got = gradient(student, **given, **options)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)
    narrow = gradient(student.astype(np.float32), **given, **options)
    np.testing.assert_allclose(narrow, got, rtol=0, atol=2e-6 * np.abs(got).max())


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_far_logits_take_the_scalars_way_to_the_same_gradient(direction: str) -> None:
    student, teacher = case(2)
    want = gradient(student, target_logits=teacher, direction=direction)
    far = np.where(np.isneginf(student), student, np.round(student * 64) / 64 + 2.0**33)
    near = np.where(np.isneginf(student), student, np.round(student * 64) / 64)
    want = gradient(near, target_logits=teacher, direction=direction)
    got = gradient(far, target_logits=teacher, direction=direction)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    classes, log_probs = sparse(teacher)
    given: dict[str, Any] = {"target_classes": classes, "target_top_log_probs": log_probs}
    want = gradient(near, direction=direction, **given)
    got = gradient(far, direction=direction, **given)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_reductions_weights_and_positions_that_do_not_count() -> None:
    student, teacher = case(3)
    weight = np.array([1.0, 0.5, 0.0, 2.0])
    each = gradient(student, target_logits=teacher, reduction="none")
    options: dict[str, Any] = {"target_logits": teacher, "weight": weight}
    np.testing.assert_allclose(gradient(student, **options), each * weight[:, None], rtol=1e-14)
    mean = gradient(student, reduction="mean", **options)
    np.testing.assert_allclose(mean, each * weight[:, None] / 3.5, rtol=1e-14)
    masked = gradient(student, mask=np.array([1, 0, 1, 1]), **options)
    assert not masked[1].any()
    assert masked[0].any()
    squared = gradient(student, target_logits=teacher, temperature=2.0, temperature_squared=True)
    plain = gradient(student, target_logits=teacher, temperature=2.0)
    np.testing.assert_allclose(squared, 4 * plain, rtol=1e-14)


def test_gradients_of_a_shift_lie_at_the_logits() -> None:
    rng = np.random.default_rng(4)
    student, teacher = rng.normal(0, 1, (2, 2, 5, 7))
    options: dict[str, Any] = {"class_axis": -1, "target_logits": teacher}
    whole = gradient(student, **options)
    moved = gradient(student, shift=2, **options)
    assert np.array_equal(moved[:, :3], whole[:, :3])
    assert not moved[:, 3:].any()
