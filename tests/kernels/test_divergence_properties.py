"""Divergences of random shapes, options, masks and dtypes, against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import kernels
from kernels import dtypes
from tests import divergence_oracle, oracle, zoo
from tests.oracle import Array

FLOATS = st.sampled_from((dtypes.FLOAT32, dtypes.FLOAT64))
DIRECTIONS = st.sampled_from(("forward", "reverse", "jsd"))
# Beside each seam of registers and blocks.
CLASSES = st.sampled_from((1, 2, 7, 16, 31, 33, 64, 65, 100, 257))


@st.composite
def problems(draw: Any) -> dict[str, Any]:
    """Logits of two sides, positions that count, and options of all calls."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    positions = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)))
    shape = (*positions, draw(CLASSES))
    spread = draw(st.sampled_from((0.01, 1.0, 8.0)))
    student, teacher = rng.normal(0, spread, (2, *shape))
    if draw(st.booleans()):  # masked on both sides alike
        hidden = rng.random(shape) < 0.3
        hidden[..., 0] = False
        student[hidden] = teacher[hidden] = -np.inf
    dtype = draw(FLOATS)
    options: dict[str, Any] = {
        "direction": draw(DIRECTIONS),
        "beta": draw(st.sampled_from((0.1, 0.5, 0.9))),
        "temperature": draw(st.sampled_from((1.0, 0.7, 4.0))),
    }
    return {
        "student": zoo.cast(student, dtype),
        "teacher": zoo.cast(teacher, dtype),
        "mask": rng.random(positions) < draw(st.sampled_from((0.0, 0.5, 1.0))),
        "weight": rng.uniform(0, 2, positions) if draw(st.booleans()) else None,
        "options": options,
    }


def held(got: Array, want: Array, problem: dict[str, Any]) -> None:
    """``got`` is the masked and weighted ``want``; of rounding, never below 0."""
    kept, weight = problem["mask"], problem["weight"]
    want = np.where(kept, want * (1 if weight is None else weight), 0)
    oracle.assert_close(got, want, scale=20)


@given(problems())
def test_dense(problem: dict[str, Any]) -> None:
    options = problem["options"]
    want = divergence_oracle.per_position(
        problem["student"], targets=problem["teacher"], class_axis=-1, **options
    )
    got = kernels.kl_div(
        problem["student"],
        problem["teacher"],
        mask=problem["mask"],
        weight=problem["weight"],
        class_axis=-1,
        reduction="none",
        **options,
    )
    held(got, want, problem)
    assert (got >= 0).all()


@given(problems(), st.sampled_from(("bucket", "ignore", "renormalize")), st.integers(1, 8))
def test_sparse(problem: dict[str, Any], tail: str, top: int) -> None:
    options = problem["options"] | {"tail": tail}
    options["target_temperature"] = options["temperature"] if tail == "renormalize" else 1.0
    log_probs = oracle.log_softmax(problem["teacher"], -1).astype(np.float64)
    listed = np.argsort(-log_probs, -1)[..., :top]
    chosen = np.take_along_axis(log_probs, listed, -1)
    # Rounding would decide if 1 - sum(exp(chosen)) is 0 or 1e-16, so if a divergence is infinite:
    # where next to nothing is left, the sum is clearly above 1, and the tail exactly 0.
    rest = np.exp(log_probs).sum(-1, keepdims=True) - np.exp(chosen).sum(-1, keepdims=True)
    chosen = np.where(rest < 2.0**-30, chosen + 2.0**-29, chosen)
    listed[..., -1:] = np.where(np.isneginf(chosen[..., -1:]), -1, listed[..., -1:])
    want = divergence_oracle.per_position(
        problem["student"], top=(listed, chosen), class_axis=-1, **options
    )
    got = kernels.kl_div(
        problem["student"],
        target_classes=listed,
        target_top_log_probs=chosen,
        mask=problem["mask"],
        weight=problem["weight"],
        class_axis=-1,
        reduction="none",
        **options,
    )
    held(got, want, problem)


@given(problems())
def test_formats_of_one_teacher_agree(problem: dict[str, Any]) -> None:
    """Logits, log-probabilities, and all classes of a sparse teacher are one distribution."""
    problem["student"] = problem["student"].astype(np.float64)
    teacher = problem["teacher"].astype(np.float64)
    log_probs = oracle.log_softmax(teacher, -1).astype(np.float64)
    options = problem["options"] | {"class_axis": -1, "reduction": "none"}
    options["target_temperature"] = 1.0
    by_logits = kernels.kl_div(problem["student"], teacher, **options)
    by_log_probs = kernels.kl_div(problem["student"], target_log_probs=log_probs, **options)
    listed = np.broadcast_to(np.arange(teacher.shape[-1]), teacher.shape)
    by_top = kernels.kl_div(
        problem["student"], target_classes=listed, target_top_log_probs=log_probs, **options
    )
    np.testing.assert_allclose(by_logits, by_log_probs, atol=1e-12)
    np.testing.assert_allclose(by_logits, by_top, atol=1e-12)
