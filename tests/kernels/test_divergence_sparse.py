"""Sparse teachers, against the oracle: tails, padding, order, many classes, dtypes, refusals."""

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


def teacher_of(logits: Array, top: int, seed: int = 1) -> tuple[Array, Array]:
    """``top`` of the likeliest classes in any order, some of them padding."""
    rng = np.random.default_rng(seed)
    log_probs = oracle.log_softmax(logits, -1).astype(np.float64)
    classes = np.argsort(-log_probs, axis=-1)[..., :top]
    classes = np.take_along_axis(classes, rng.random(classes.shape).argsort(-1), -1)
    chosen = np.take_along_axis(log_probs, classes, -1)
    padded = rng.random(classes.shape) < 0.2
    return np.where(padded, -1, classes), np.where(padded, np.nan, chosen)


def case(rows: int, classes: int, top: int, dtype: Any = np.float64) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(classes)
    student, teacher = rng.normal(0, 3, (2, rows, classes))
    return (student.astype(dtype), *teacher_of(teacher, top))


@pytest.mark.parametrize(("direction", "tail"), list(product(DIRECTIONS, TAILS)))
def test_tails(direction: str, tail: str) -> None:
    for rows, classes, top in ((5, 3, 2), (4, 40, 40), (3, 700, 64), (2, 9000, 5)):
        for dtype in (np.float64, np.float32):
            student, listed, log_probs = case(rows, classes, top, dtype)
            options: dict[str, Any] = {"direction": direction, "tail": tail, "beta": 0.7}
            with np.errstate(invalid="ignore"):
                want = divergence_oracle.per_position(student, top=(listed, log_probs), **options)
            got = kernels.kl_div(
                student,
                target_classes=listed,
                target_top_log_probs=log_probs,
                reduction="none",
                **options,
            )
            oracle.assert_close(got, want, scale=10)


def test_a_small_rest_keeps_its_digits() -> None:
    """The student's rest, summed by itself: 1 - sum(q) of float32 would have lost it."""
    student = np.full((1, 1000), -25.0, np.float32)
    student[0, :2] = 0.0
    listed, log_probs = np.array([[0, 1]]), np.log(np.array([[0.45, 0.45]]))
    options: dict[str, Any] = {"target_classes": listed, "target_top_log_probs": log_probs}
    want = divergence_oracle.per_position(student, top=(listed, log_probs))
    assert want[0] > 1.5
    got = kernels.kl_div(student, **options)
    assert got == pytest.approx(float(want[0]), rel=1e-6)


def test_a_listed_class_may_tower_over_the_rest() -> None:
    """The rest has a shift of its own: 400 below the listed class it is not lost."""
    student = np.random.default_rng(0).normal(-400, 1, (1, 500)).astype(np.float32)
    student[0, 250] = 0.0
    listed, log_probs = np.array([[250]]), np.array([[-0.5]])
    for direction in DIRECTIONS:
        options: dict[str, Any] = {"direction": direction}
        want = divergence_oracle.per_position(student, top=(listed, log_probs), **options)
        got = kernels.kl_div(
            student, target_classes=listed, target_top_log_probs=log_probs, **options
        )
        assert got == pytest.approx(float(want[0]), rel=1e-6)


def test_all_classes_are_the_dense_teacher() -> None:
    rng = np.random.default_rng(6)
    student, teacher = rng.normal(0, 3, (2, 6, 30))
    log_probs = oracle.log_softmax(teacher).astype(np.float64)
    listed = np.tile(rng.permutation(30), (6, 1))
    chosen = np.take_along_axis(log_probs, listed, 1)
    for direction, tail in product(DIRECTIONS, ("bucket", "renormalize")):
        want = kernels.kl_div(student, teacher, direction=direction)
        got = kernels.kl_div(
            student,
            target_classes=listed,
            target_top_log_probs=chosen,
            direction=direction,
            tail=tail,
        )
        assert got == pytest.approx(float(want), rel=1e-12)
    own = oracle.log_softmax(student).astype(np.float64)
    same = kernels.kl_div(
        student,
        target_classes=listed,
        target_top_log_probs=np.take_along_axis(own, listed, 1),
    )
    assert same == pytest.approx(0, abs=1e-15)


def test_renormalised_at_a_temperature() -> None:
    student, listed, log_probs = case(4, 50, 8)
    options: dict[str, Any] = {"tail": "renormalize", "temperature": 3.0}
    want = divergence_oracle.per_position(student, top=(listed, log_probs), **options)
    got = kernels.kl_div(
        student,
        target_classes=listed,
        target_top_log_probs=log_probs,
        reduction="none",
        **options,
    )
    oracle.assert_close(got, want)


def test_positions_shapes_and_integer_types() -> None:
    """Classes are the logits' positions and then K, whatever the class axis; any integer type."""
    rng = np.random.default_rng(2)
    student, teacher = rng.normal(0, 2, (2, 2, 3, 4, 9))
    listed, log_probs = teacher_of(teacher, 3)
    labels = rng.integers(0, 9, (2, 3, 4))
    outputs = ["per_element", "gradient", "same_top", "label_log_probs", "target_label_log_probs"]
    want = kernels.kl_div(
        student,
        target_classes=listed,
        target_top_log_probs=log_probs,
        labels=labels,
        class_axis=-1,
        outputs=outputs,
    )
    assert want["per_element"].shape == (2, 3, 4)
    got = kernels.kl_div(
        np.moveaxis(student, -1, 1),
        target_classes=listed.astype(np.int8),
        target_top_log_probs=np.asfortranarray(log_probs),
        labels=labels,
        outputs=outputs,
    )
    for name in outputs:
        other = np.moveaxis(got[name], 1, -1) if name == "gradient" else got[name]
        assert np.array_equal(want[name], other, equal_nan=True), name
    # The teacher's likeliest class, and its label where it lists it.
    for at in np.ndindex(2, 3, 4):
        kept = listed[at] >= 0
        named = listed[at][kept]
        same = named.size and named[log_probs[at][kept].argmax()] == student[at].argmax()
        assert want["same_top"][at] == (int(same) if named.size else -1)
        own = log_probs[at][kept][named == labels[at]]
        got_own = want["target_label_log_probs"][at]
        assert got_own == own[0] if own.size else np.isnan(got_own)
    own = oracle.log_softmax(student, -1)
    chosen = np.take_along_axis(own, labels[..., None], -1)[..., 0]
    oracle.assert_close(want["label_log_probs"], chosen)


def test_threads_and_steps_change_no_bit() -> None:
    student, listed, log_probs = case(300, 400, 16, np.float32)
    options: dict[str, Any] = {"target_classes": listed, "target_top_log_probs": log_probs}
    outputs = ["loss", "gradient"]
    want = kernels.kl_div(student, outputs=outputs, **options)
    work = kernels.steps.kl_div(student, outputs=outputs, step=2**15, **options)
    got = work.run()
    for name in outputs:
        assert np.array_equal(want[name], got[name])
