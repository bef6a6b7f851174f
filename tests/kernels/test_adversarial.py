"""The one-pass shift trick against rows made to break it, and memory that a loss may not take.

Every loss, log-sum-exp, entropy and gradient within 2e-6 of max(1, |value|), 1e-12 for float64.
"""

from __future__ import annotations

import functools
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import oracle, zoo
from tests.oracle import Array

NAMES = ["per_element", "log_sum_exp", "entropy", "gradient", "rank", "prediction", "log_probs"]


def truth(logits: Array, labels: Array, **options: Any) -> dict[str, Array]:
    """Expected values of ``NAMES``, for rows."""
    return {
        "per_element": oracle.cross_entropy(logits, labels, reduction="none", **options),
        "log_sum_exp": oracle.log_sum_exp(logits),
        "entropy": oracle.entropy(logits),
        "gradient": oracle.gradient(logits, labels, reduction="sum", **options),
        "rank": oracle.rank(logits, labels),
        "prediction": oracle.prediction(logits),
        "log_probs": oracle.log_softmax(logits),
    }


def hold(got: dict[str, Array], want: dict[str, Array], *, about: str, classes_first: bool) -> None:
    for name in NAMES:
        turned = got[name].T if classes_first and got[name].ndim == 2 else got[name]
        if name == "log_probs":  # in base 2 the lowest 30 % of a type's range overflow
            lowest = np.finfo(turned.dtype).min * math.log(2)
            turned = np.where((want[name] < lowest) & np.isneginf(turned), want[name], turned)
            turned = turned.astype(got[name].dtype)
        try:
            oracle.assert_close(turned, want[name])
        except AssertionError as error:
            raise AssertionError(f"{name} of {about}: {error}") from None


def rows_of(classes: int, dtype: dtypes.DType) -> tuple[list[str], Array, Array]:
    """All the adversarial rows, each with its largest, a middle and the last class for a label."""
    names, rows = zip(*zoo.adversarial(classes), strict=True)
    logits = np.stack(rows)
    labels = np.stack([logits.argmax(1), np.full(len(rows), classes // 2)], axis=1)
    labels[::3, 1] = classes - 1
    return list(names), zoo.cast(np.repeat(logits, 2, axis=0), dtype), labels.reshape(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [2, 4, 5, 17, 100, 256, 257, 5000])
def test_rows_and_planes(classes: int, smoothing: float, dtype: dtypes.DType) -> None:
    """Rows: up to 256 classes many at a time, above in blocks. Planes: the same rows, turned."""
    names, logits, labels = rows_of(classes, dtype)
    if smoothing:  # sums of 1e38s may overflow or not, and both would be right
        tame = np.abs(np.where(np.isinf(wide := oracle.widen(logits)), 0, wide)).max(1) < 1e32
        logits, labels = logits[tame], labels[tame]
    with np.errstate(invalid="ignore"):
        want = truth(logits, labels, label_smoothing=smoothing)
    options: dict[str, Any] = {
        "outputs": NAMES, "reduction": "sum", "label_smoothing": smoothing,
    }  # fmt: skip
    got = kernels.cross_entropy(logits, labels, **options)
    hold(got, want, about=f"rows: {names}", classes_first=False)
    columns = np.array(logits.T, order="C")
    got = kernels.cross_entropy(columns, labels, class_axis=0, **options)
    hold(got, want, about=f"columns: {names}", classes_first=True)


@pytest.mark.parametrize("dtype", [dtypes.FLOAT32, dtypes.FLOAT64], ids=lambda row: row.name)
def test_rows_of_two_segments(dtype: dtypes.DType) -> None:
    """Blocks are of 4096 classes and segments, which guess afresh, of 65536."""
    for name, row in zoo.adversarial(70_000):
        logits = zoo.cast(row[None], dtype)
        labels = np.array([65_540])
        with np.errstate(invalid="ignore"):
            want = truth(logits, labels)
        got = kernels.cross_entropy(logits, labels, reduction="sum", outputs=NAMES)
        hold(got, want, about=name, classes_first=False)
        alone = kernels.cross_entropy(logits, labels, reduction="none")
        assert alone.tobytes() == got["per_element"].tobytes()


LONG = {
    "growing", "growing slowly", "growing in steps", "shrinking in steps", "alternating segments",
    "first 65536 are -inf", "first 65536 are -1e+09", "all but the last are -inf",
    "19 at 131072", "10000 at 131071", "all below -1e30",
}  # fmt: skip


def test_rows_of_five_segments() -> None:
    rows = dict(zoo.adversarial(300_000))
    assert rows.keys() >= LONG
    for name in sorted(LONG):
        logits, labels = zoo.cast(rows[name][None], dtypes.FLOAT32), np.array([131_072])
        want = truth(logits, labels)
        got = kernels.cross_entropy(logits, labels, reduction="sum", outputs=NAMES)
        hold(got, want, about=name, classes_first=False)
        alone = kernels.cross_entropy(logits, labels, reduction="none")
        assert alone.tobytes() == got["per_element"].tobytes()


# What lies in memory, and the view of it that is the logits: 2048 positions of 8192 classes.
VIEWS: dict[str, tuple[tuple[int, ...], Callable[[Array], Array], int]] = {
    "whole": ((2048, 8192), lambda memory: memory, 1),
    "window": ((2049, 8200), lambda memory: memory[1:, 8:], 1),
    "classes strided": ((2, 8192, 32, 32), lambda memory: memory, 1),
    "classes first": ((8192, 2048), lambda memory: memory, 0),
}
NO_COPY = 2**20


def peak_of(call: Callable[[], Any]) -> int:
    """The most bytes at once that NumPy and Python ask for in ``call``'s second run."""
    call()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", VIEWS)
def test_a_loss_makes_no_second_array_of_the_logits_size(name: str) -> None:
    shape, view, axis = VIEWS[name]
    logits = view(np.ones(shape, np.float32))
    labels = np.zeros(tuple(np.delete(logits.shape, axis)), np.int64)
    assert logits.nbytes == 64 * 2**20
    options: list[dict[str, Any]] = [{}, {"label_smoothing": 0.1, "z_loss": 0.1}]
    options += [{"outputs": ["loss", "log_sum_exp", "entropy", "rank", "prediction"]}]
    for row in options:
        call = functools.partial(kernels.cross_entropy, logits, labels, class_axis=axis, **row)
        assert peak_of(call) < NO_COPY


@pytest.mark.parametrize("shape", [(2048, 8192), (4, 262_144), (262_144, 8)], ids=str)
def test_an_awkward_view_is_copied_in_small_chunks(shape: tuple[int, int]) -> None:
    """Every second class: no kernel walks that, nor is the whole copied."""
    logits = np.ones((shape[0], 2 * shape[1]), np.float32)[:, ::2]
    labels = np.zeros(shape[0], np.int64)
    assert peak_of(lambda: kernels.cross_entropy(logits, labels)) < logits.nbytes / 2 + NO_COPY


def test_a_gradient_takes_its_own_size_and_no_more() -> None:
    logits = np.ones((512, 8192), np.float32)
    labels = np.zeros(512, np.int64)
    peak = peak_of(lambda: kernels.cross_entropy(logits, labels, outputs=["loss", "gradient"]))
    assert peak < logits.nbytes + NO_COPY
