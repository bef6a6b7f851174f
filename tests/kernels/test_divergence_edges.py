"""Divergences at the edge: a row here for each row of the table in ``docs/kl_div.md``.

Never a NaN where the limit exists. Rows of 40 classes take registers' way, the same in float64
scalars where a logit is infinite or far.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kernels
from tests.oracle import Array

INF = math.inf
# Three classes, and 37 that both sides exclude: a row of more than a register.
REST = [-INF] * 37


def row(*logits: float) -> Array:
    return np.array([[*logits, *REST]])


def log(*shares: float) -> Array:
    with np.errstate(divide="ignore"):
        return row(*np.log(np.array(shares)))


LN2 = math.log(2)
# teacher, student, and the divergence forward, reverse and JSD of beta 1/2.
CASES: dict[str, tuple[Array, Array, float, float, float]] = {
    "0 * log(0) on both sides": (log(0.5, 0.5, 0), log(0.5, 0.5, 0), 0, 0, 0),
    "the teacher excludes a class": (
        log(1, 0, 0),
        log(0.5, 0.5, 0),
        LN2,
        INF,
        0.5 * math.log(1 / 0.75) + 0.5 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(2)),
    ),
    "the student excludes a class": (
        log(0.5, 0.5, 0),
        log(1, 0, 0),
        INF,
        LN2,
        0.5 * math.log(1 / 0.75) + 0.5 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(2)),
    ),
    "no class in common": (log(1, 0, 0), log(0, 1, 0), INF, INF, LN2),
    "one class alone": (log(1, 0, 0), row(7.25, -INF, -INF), 0, 0, 0),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_limits(case: str, dtype: Any) -> None:
    teacher, student, *wanted = CASES[case]
    for direction, want in zip(("forward", "reverse", "jsd"), wanted, strict=True):
        got = kernels.kl_div(student.astype(dtype), teacher.astype(dtype), direction=direction)
        assert float(got) == pytest.approx(want, abs=1e-6 if dtype is np.float32 else 1e-15)


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize("value", [math.nan, INF])
def test_a_nan_or_plus_infinity_makes_its_position_nan_and_no_other(
    value: float, direction: str
) -> None:
    rng = np.random.default_rng(0)
    for side in range(2):
        pair = rng.normal(0, 1, (2, 5, 40))
        pair[side, 2, 17] = value
        got = kernels.kl_div(*pair, direction=direction, reduction="none")
        assert np.array_equal(np.isnan(got), np.arange(5) == 2)


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize("value", [math.nan, INF])
@pytest.mark.parametrize("at", [5, 1023, 1024, 2999])
@pytest.mark.parametrize("largest", [0, 2000])
def test_a_nan_or_infinity_is_not_lost_below_logits_of_a_later_block(
    largest: float, at: int, value: float, direction: str
) -> None:
    for side in range(2):
        pair = np.random.default_rng(at).normal(0, 1, (2, 3, 3000)).astype(np.float32)
        pair[:, :, 1500] += largest
        pair[side, 1, at] = value
        got = kernels.kl_div(*pair, direction=direction, reduction="none")
        assert np.isnan(got).tolist() == [False, True, False]


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("at", [5, 1023, 1024, 2999])
def test_a_nan_of_the_student_is_no_fault_of_a_teacher_whose_shares_sum_to_1(
    at: int, direction: str
) -> None:
    teacher = np.log(np.random.default_rng(at).dirichlet(np.ones(3000), 3)).astype(np.float32)
    student = np.zeros((3, 3000), np.float32)
    student[1, at] = np.nan
    found = kernels.kl_div(student, target_log_probs=teacher, direction=direction, reduction="none")
    assert np.isnan(found).tolist() == [False, True, False]


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
def test_a_side_without_any_class_is_no_distribution(direction: str) -> None:
    rows = np.zeros((2, 40))
    rows[0] = -INF
    for pair in ((rows, np.zeros((2, 40))), (np.zeros((2, 40)), rows)):
        got = kernels.kl_div(*pair, direction=direction, reduction="none")
        assert np.isnan(got[0])
        assert got[1] == 0


def test_what_is_left_out_is_never_looked_at() -> None:
    """NaN, infinite divergences and targets that are none, where mask or weight is 0."""
    bad = np.full((1, 40), math.nan)
    student, teacher = np.vstack([bad, log(1, 0, 0)]), np.vstack([bad, log(0, 1, 0)])
    for name in ("mask", "weight"):
        zeros: dict[str, Any] = {name: np.zeros(2, np.int64)}
        assert kernels.kl_div(student, teacher, reduction="sum", **zeros) == 0
        got = kernels.kl_div(student, target_log_probs=teacher, reduction="sum", **zeros)
        assert got == 0


def test_a_logit_too_low_for_the_registers_is_no_infinity() -> None:
    """-3.4e38 is what masks are often made of; times log2(e) it is beyond float32."""
    lowest = float(np.finfo(np.float32).min)
    student = np.array([[0.0, lowest, *([0.0] * 38)]], np.float32)
    teacher = np.zeros((1, 40), np.float32)
    got = kernels.kl_div(student, teacher)
    assert got == pytest.approx(-lowest / 40, rel=1e-6)
    assert kernels.kl_div(student, student) == 0
    assert kernels.kl_div(student, teacher, direction="reverse") == pytest.approx(
        math.log(40 / 39), abs=1e-6
    )


@pytest.mark.parametrize("offset", [1e5, 1e7, -1e7, 1e12])
def test_large_logits(offset: float) -> None:
    """A constant changes no softmax, however large, where float64 still has the differences."""
    rng = np.random.default_rng(0)
    student, teacher = rng.integers(-8, 8, (2, 3, 40)).astype(np.float64)
    want = kernels.kl_div(student, teacher)
    got = kernels.kl_div(student + offset, teacher)
    assert got == pytest.approx(float(want), rel=1e-9)


def test_infinite_reverse_divergence_has_the_gradient_of_its_limit() -> None:
    """+inf for the class that the teacher excludes, -inf for those that could have its share."""
    got = kernels.kl_div(
        log(0.5, 0.25, 0.25), log(0.5, 0.5, 0), direction="reverse", outputs=["gradient"]
    )["gradient"]
    assert got[0, 2] == INF
    assert (got[0, :2] == -INF).all()
    assert not got[0, 3:].any()


def sparse(classes: list[int], shares: list[float], logits: Array, **options: Any) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(
            kernels.kl_div(
                logits,
                target_classes=np.array([classes]),
                target_top_log_probs=np.log(np.array([shares])),
                **options,
            )
        )


FLAT = np.zeros((1, 4))
# Sparse teachers of four classes: classes, probabilities, logits, options, divergence.
SPARSE: dict[str, tuple[list[int], list[float], Array, dict[str, Any], float]] = {
    "all classes leave nothing": ([2, 0, 1, 3], [0.25] * 4, FLAT, {}, 0),
    "all classes, a mass off by rounding": ([0, 1, 2, 3], [0.2500001] * 4, FLAT, {}, 0),
    "the mass is 1": ([0, 1], [0.5, 0.5], FLAT, {}, LN2),
    "the mass is 1, reverse": ([0, 1], [0.5, 0.5], FLAT, {"direction": "reverse"}, INF),
    "the student has no rest": (
        [0, 1],
        [0.5, 0.25],
        np.array([[0, 0, -INF, -INF]]),
        {},
        INF,
    ),
    "neither has a rest": ([0, 1], [0.5, 0.5], np.array([[0, 0, -INF, -INF]]), {}, 0),
    "padding alone": ([-1, -1], [0.5, 0.5], FLAT, {}, 0),
    "padding alone, renormalised": ([-1, -1], [1, 1], FLAT, {"tail": "renormalize"}, 0),
    "a class of probability 0": ([0, 1], [0, 0.5], FLAT, {"tail": "ignore"}, 0.5 * LN2),
    "ignored rest may be negative": (
        [0],
        [0.125],
        FLAT,
        {"tail": "ignore"},
        0.125 * math.log(0.5),
    ),
}


@pytest.mark.parametrize("case", SPARSE)
def test_limits_of_a_sparse_teacher(case: str) -> None:
    classes, shares, logits, options, want = SPARSE[case]
    assert float(sparse(classes, shares, logits, **options)) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize("masked", [-INF, float(np.finfo(np.float32).min), -1e4])
def test_a_rest_of_rounding_is_none_where_the_student_has_none(
    masked: float, direction: str
) -> None:
    """Teachers of all their mass, rounded up or down, against students that are masked alike."""
    rng = np.random.default_rng(3)
    own = rng.normal(0, 3, (24, 5))
    logs = own - np.log(np.exp(own).sum(1, keepdims=True))
    narrow = logs.astype(np.float32)
    masses = np.exp(narrow.astype(np.float64)).sum(1)
    assert (masses < 1).any()
    assert (masses > 1).any()
    student = np.full((24, 9), masked)
    student[:, 2:7] = own
    teacher: dict[str, Any] = {"target_classes": np.tile(np.arange(2, 7), (24, 1))}
    for log_probs, most in ((narrow, 1e-6), (logs, 1e-14), (logs + math.log1p(-(2.0**-21)), 1e-14)):
        got = kernels.kl_div(
            student.astype(np.float32) if log_probs is narrow else student,
            target_top_log_probs=log_probs,
            direction=direction,
            outputs=["per_element", "gradient"],
            reduction="none",
            **teacher,
        )
        assert (got["per_element"] <= most).all()
        assert (np.abs(got["gradient"]) <= most).all()


def test_a_rest_of_the_teacher_is_one_where_it_is_no_rounding() -> None:
    """At 2**-20 and above, and where the student has a rest, however small."""
    shares = [0.5, 0.5 - 2.0**-19]
    gone = np.array([[0, 0, -INF, -INF]])
    assert sparse([0, 1], shares, gone) == INF
    rest = 2.0**-21
    got = sparse([0, 1], [0.5, 0.5 - rest], np.array([[0, 0, -700.0, -INF]]))
    assert float(got) == pytest.approx(rest * (699 + math.log(2 * rest)), rel=1e-6)
