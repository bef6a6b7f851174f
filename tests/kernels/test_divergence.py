"""Divergences from dense targets, against the oracle: hard rows, dtypes, options, positions.

Float32 results are held to 2e-6 of max(1, the divergence), float64 to 1e-12 (``oracle.TOLERANCE``),
times the size of the terms: sum(p * abs(log p - log q)).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numba
import numpy as np
import pytest

import kernels
from kernels import dtypes
from kernels.plan import outputs_of
from tests import divergence_oracle, oracle, zoo
from tests.oracle import Array

DIRECTIONS = ("forward", "reverse", "jsd")
# Rows within the range of float32; the others differ between the types.
HARD = [name for name in zoo.ROWS if name not in ("around_3e38", "below_-1e30", "seventy_thousand")]
COMPILED = (dtypes.FLOAT32, dtypes.FLOAT64)


def teacher_of(rows: Array, seed: int = 3) -> Array:
    """Logits like ``rows``, with some noise: where those are -inf or NaN, so are these."""
    with np.errstate(all="ignore"):
        return rows + np.random.default_rng(seed).normal(0, 0.7, rows.shape)


def scale_of(student: Array, teacher: Array, direction: str, **options: Any) -> Array:
    """Size of the terms of each position, which bounds what rounding may do."""
    temperature = options.get("temperature", 1.0)
    s, t = (oracle.log_softmax(x, temperature=temperature) for x in (student, teacher))
    p, q = (s, t) if direction == "reverse" else (t, s)
    with np.errstate(all="ignore"):
        terms = np.where(np.exp(p) == 0, 0, np.exp(p) * np.abs(p - q)).sum(-1)
        shift = np.abs(oracle.widen(student)).max(-1, where=np.isfinite(student), initial=1)
    return np.asarray(np.maximum(np.nan_to_num(terms, posinf=1.0), 1e-2 * shift))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("rows", HARD)
def test_hard_rows(rows: str, direction: str) -> None:
    for dtype in COMPILED:
        student = zoo.cast(zoo.ROWS[rows], dtype)
        teacher = zoo.cast(teacher_of(zoo.ROWS[rows]), dtype)
        got = kernels.kl_div(student, teacher, direction=direction, beta=0.3, reduction="none")
        want = divergence_oracle.per_position(
            student, targets=teacher, direction=direction, beta=0.3
        )
        assert got.dtype == dtype.result
        oracle.assert_close(got, want, scale_of(student, teacher, direction))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_equal_tensors_diverge_by_exactly_nothing(direction: str) -> None:
    for dtype in COMPILED:
        for name in HARD:
            rows = zoo.cast(zoo.ROWS[name], dtype)
            for temperature in (1.0, 2.0, 0.3):
                got = kernels.kl_div(
                    rows,
                    rows.copy(),
                    direction=direction,
                    beta=0.3,
                    temperature=temperature,
                    reduction="none",
                )
                broken = ~np.isfinite(oracle.log_sum_exp(rows).astype(np.float64))
                assert not got[~broken].any(), name
                assert np.isnan(got[broken]).all(), name


@pytest.mark.parametrize("size", [1e-6, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_small_divergences_are_not_negative_and_within_3e_7(direction: str, size: float) -> None:
    """The bound near 0, absolute: 3e-7 in float32, of which the divergence itself may be less."""
    rng = np.random.default_rng(5)
    for spread in (0.1, 3.0, 10.0):
        teacher = rng.normal(0, spread, (40, 3000)).astype(np.float32)
        student = teacher + (size * rng.standard_normal(teacher.shape)).astype(np.float32)
        got = kernels.kl_div(student, teacher, direction=direction, reduction="none")
        want = divergence_oracle.per_position(student, targets=teacher, direction=direction)
        assert (got >= 0).all()
        assert np.abs(got - want).max() <= 3e-7
        wide = [array.astype(np.float64) for array in (student, teacher)]
        got = kernels.kl_div(*wide, direction=direction, reduction="none")
        assert (got >= 0).all()
        assert np.abs(got - want).max() <= 1e-14


def test_narrow_types_are_computed_in_float32() -> None:
    """Targets of another 16-bit or 32-bit type are read as they are: the bits of the widened."""
    rng = np.random.default_rng(7)
    student, teacher = rng.normal(0, 3, (2, 5, 700))
    a, b = zoo.cast(student, dtypes.BFLOAT16), zoo.cast(teacher, dtypes.BFLOAT16)
    wide = [oracle.widen(array).astype(np.float32) for array in (a, b)]
    want = divergence_oracle.per_position(a, targets=b)
    got = kernels.kl_div(a, b, reduction="none")
    oracle.assert_close(got, want)
    bits = [array.view(np.uint16) for array in (a, b)]
    assert np.array_equal(got, kernels.kl_div(*bits, logits_dtype="bfloat16", reduction="none"))
    mixed = kernels.kl_div(a, wide[1], reduction="none")
    assert np.array_equal(mixed, kernels.kl_div(*wide, reduction="none"))
    # The dtype of the results is that of the logits: float64 targets are rounded to theirs.
    assert np.array_equal(mixed, kernels.kl_div(a, wide[1].astype(np.float64), reduction="none"))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("dense", ["target_logits", "target_log_probs"])
def test_any_class_axis_and_layout(axis: int, dense: str) -> None:
    def given(array: Array) -> dict[str, Any]:
        return {dense: array}

    rng = np.random.default_rng(axis + 1)
    student, teacher = rng.normal(0, 3, (2, 4, 5, 6))
    want = divergence_oracle.per_position(student, targets=teacher, class_axis=axis)
    if dense == "target_log_probs":
        teacher = oracle.log_softmax(teacher, axis).astype(np.float64)
    options: dict[str, Any] = {"class_axis": axis, "outputs": ["per_element", "gradient"]}
    first = kernels.kl_div(student, **options, **given(teacher))
    oracle.assert_close(first["per_element"], want)
    assert first["gradient"].shape == student.shape
    for layout in (np.asfortranarray, lambda x: np.flip(np.flip(x, 0).copy(), 0)):
        again = kernels.kl_div(layout(student), **options, **given(layout(teacher)))
        for name, array in first.items():
            assert np.array_equal(array, again[name]), name


def test_log_probs_of_a_softmax_are_what_their_logits_are() -> None:
    """At any temperature, and scaled to sum to 1 where rounding has left them beside it."""
    rng = np.random.default_rng(2)
    student, teacher = rng.normal(0, 3, (2, 6, 50))
    log_probs = oracle.log_softmax(teacher).astype(np.float64)
    for temperature in (1.0, 3.0):
        want = kernels.kl_div(student, teacher, temperature=temperature)
        got = kernels.kl_div(student, target_log_probs=log_probs, temperature=temperature)
        assert got == pytest.approx(want, abs=1e-13)
        off = kernels.kl_div(student, target_log_probs=log_probs + 0.01, temperature=temperature)
        assert off == pytest.approx(want, abs=1e-13)


def test_temperatures() -> None:
    """Of both sides, and each its own; the square of the student's is a factor on request."""
    rng = np.random.default_rng(3)
    student, teacher = rng.normal(0, 3, (2, 4, 60))
    for direction in DIRECTIONS:
        for own in (None, 0.5):
            options: dict[str, Any] = {
                "direction": direction,
                "temperature": 2.5,
                "target_temperature": own,
            }
            want = divergence_oracle.per_position(student, targets=teacher, **options)
            got = kernels.kl_div(student, teacher, reduction="none", **options)
            oracle.assert_close(got, want)
            squared = kernels.kl_div(
                student, teacher, reduction="none", temperature_squared=True, **options
            )
            np.testing.assert_allclose(squared, 6.25 * got, rtol=1e-15)


def test_positions_that_count() -> None:
    """Mask, ignored labels, weights and the shift, in every reduction; and the sums that merge."""
    rng = np.random.default_rng(4)
    student, teacher = rng.normal(0, 2, (2, 3, 7, 11))
    labels = rng.integers(0, 11, (3, 7))
    labels[0, 5] = -100
    mask = rng.random((3, 7)) < 0.8
    weight = rng.uniform(0, 2, (3, 7))
    weight[1, 6] = 0.0
    whole = divergence_oracle.per_position(student, targets=teacher, class_axis=-1)
    for shift in (0, 1, 2, -1):
        scored = np.full((3, 7), np.nan)
        to, source = (slice(shift, None), slice(None, 7 - shift))
        if shift < 0:
            to, source = slice(None, shift), slice(-shift, None)
        scored[:, to] = whole[:, source]
        kept = mask & (labels != -100) & np.isfinite(scored)
        want = np.where(kept, weight * np.nan_to_num(scored), 0)
        options: dict[str, Any] = {
            "labels": labels,
            "mask": mask.astype(np.int8),
            "weight": weight,
            "shift": shift,
            "class_axis": -1,
        }
        got = kernels.kl_div(
            student,
            teacher,
            outputs=["loss", "per_element", "count", "weight_sum", "loss_sum", "same_top"],
            **options,
        )
        np.testing.assert_allclose(got["per_element"], want, atol=1e-13)
        assert np.array_equal(got["same_top"] == -1, ~kept)
        assert got["count"] == kept.sum()
        assert got["weight_sum"] == pytest.approx(weight[kept].sum(), abs=1e-12)
        assert got["loss_sum"] == pytest.approx(want.sum(), abs=1e-12)
        assert got["loss"] == pytest.approx(want.sum() / weight[kept].sum(), abs=1e-12)
        total = kernels.kl_div(student, teacher, reduction="sum", **options)
        assert total == pytest.approx(want.sum(), abs=1e-12)
        each = kernels.kl_div(student, teacher, reduction="none", **options)
        assert np.array_equal(each, got["per_element"])


def test_parts_merge_to_the_whole() -> None:
    rng = np.random.default_rng(8)
    student, teacher = rng.normal(0, 2, (2, 97, 13))
    weight = rng.uniform(0, 2, 97)
    whole = kernels.kl_div(student, teacher, weight=weight)
    cuts = (0, 1, 40, 96, 97)
    parts = [
        kernels.kl_div(
            student[lo:hi],
            teacher[lo:hi],
            weight=weight[lo:hi],
            outputs=["count", "weight_sum", "loss_sum"],
        )
        for lo, hi in pairwise(cuts)
    ]
    merged = kernels.merge(parts)
    assert merged["count"] == 97
    assert merged["loss"] == pytest.approx(float(whole), rel=1e-14)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_outputs_of_each_position(direction: str) -> None:
    rng = np.random.default_rng(9)
    student, teacher = rng.normal(0, 1, (2, 60, 9))
    student[0], teacher[0] = 1.0, 2.0  # all alike: the first is the likeliest
    student[1, 3] = np.nan
    labels = rng.integers(0, 9, 60)
    got = kernels.kl_div(
        student, teacher, labels=labels, direction=direction, outputs=outputs_of("kl_div")
    )
    s, t = oracle.log_softmax(student), oracle.log_softmax(teacher)
    same = (s.argmax(1) == t.argmax(1)).astype(int)
    same[1] = -1
    assert np.array_equal(got["same_top"], same)
    own, other = s[np.arange(60), labels], t[np.arange(60), labels]
    oracle.assert_close(got["label_log_probs"], own)
    oracle.assert_close(got["target_label_log_probs"][2:], other[2:])
    oracle.assert_close(got["delta_p"][2:], (np.exp(own) - np.exp(other))[2:])
    assert np.isnan(got["delta_p"][1])


def test_threads_and_steps_change_no_bit() -> None:
    rng = np.random.default_rng(10)
    student = rng.normal(0, 3, (301, 700)).astype(np.float32)
    teacher = rng.normal(0, 3, (301, 700)).astype(np.float32)
    outputs = ["loss", "per_element", "gradient", "same_top"]
    want = kernels.kl_div(student, teacher, outputs=outputs)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = kernels.kl_div(student, teacher, outputs=outputs)
    finally:
        numba.set_num_threads(threads)
    work = kernels.steps.kl_div(student, target_logits=teacher, outputs=outputs, step=2**16)
    assert work.window is not None
    needs, reach = [], 0
    while True:
        try:
            reach = next(work.steps)
            needs.append(reach)
        except StopIteration as stopped:
            stepped = stopped.value
            break
    assert len(needs) > 5
    assert needs == sorted(needs)
    assert needs[-1] == student.nbytes
    assert max(np.diff([0, *needs])) <= work.window
    for name in outputs:
        assert np.array_equal(want[name], alone[name]), name
        assert np.array_equal(want[name], stepped[name]), name


EMPTY: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "no positions": ((0, 5), {}),
    "all masked": ((3, 5), {"mask": np.zeros(3, bool)}),
    "all ignored": ((3, 5), {"labels": np.full(3, -100)}),
    "weights of 0": ((3, 5), {"weight": np.zeros(3)}),
}


@pytest.mark.parametrize("case", EMPTY)
def test_means_over_nothing(case: str) -> None:
    shape, options = EMPTY[case]
    rng = np.random.default_rng(1)
    student, teacher = rng.normal(0, 1, (2, *shape))
    assert np.isnan(kernels.kl_div(student, teacher, **options))
    assert kernels.kl_div(student, teacher, empty="zero", **options) == 0
    with pytest.raises(kernels.InvalidInput, match="over nothing"):
        kernels.kl_div(student, teacher, empty="error", **options)
    got = kernels.kl_div(
        student, teacher, reduction="sum", outputs=["loss", "per_element", "gradient"], **options
    )
    assert got["loss"] == 0
    assert not got["per_element"].any()
    assert got["gradient"].shape == shape
    assert not got["gradient"].any()


def test_a_single_row_of_one_dimension() -> None:
    student, teacher = np.array([1.0, 2.0, 0.0]), np.array([0.0, 1.0, 0.5])
    want = divergence_oracle.per_position(student, targets=teacher)
    got = kernels.kl_div(student, teacher, outputs=["loss", "per_element", "gradient"])
    assert got["per_element"].shape == ()
    oracle.assert_close(got["per_element"], want)
    assert got["gradient"].shape == (3,)
