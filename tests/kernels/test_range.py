"""Logits at the ends of their type's range: finite wherever the true value is, and right.

The oracle computes with NumPy's extended precision, whose exponents reach 16384.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import oracle, zoo
from tests.oracle import Array

pytestmark = pytest.mark.skipif(
    bool(np.finfo(np.longdouble).maxexp == 1024), reason="no extended precision here"
)
WIDE = [dtypes.FLOAT32, dtypes.FLOAT64]
ROWS = 6
# Shares of the largest number; what float32 and float64 hold of the last ones differs.
SHARES = np.array([1, -1, 0.75, -0.75, 0.3, -0.3, 1e-9, -1e-9, 0])


def largest(dtype: dtypes.DType) -> float:
    if dtype is dtypes.BFLOAT16:
        return float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)  # type: ignore[no-untyped-call]
    return float(np.finfo(dtype.numpy).max)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hot": {"temperature": 2.5},
    "cold": {"temperature": 0.5},
    "coldest": {"temperature": 1e-30},
    "hottest": {"temperature": 1e30},
    "smoothing": {"label_smoothing": 0.1},
    "nothing else": {"label_smoothing": 1.0},
    "smoothing, cold": {"label_smoothing": 0.3, "temperature": 0.4},
    "weight": {"weight": 1e-3},
    "weight, smoothing": {"weight": 0.2, "label_smoothing": 0.2},
    "heavy": {"weight": 1e39, "label_smoothing": 0.2},
    "sample_weight": {"sample_weight": 1e-4, "temperature": 0.5},
    "z_loss": {"z_loss": 1e-250},
    "capped": {"softcap": 1e30},
    "all": {
        "weight": 0.3, "label_smoothing": 0.2, "temperature": 0.5, "sample_weight": 0.01,
        "z_loss": 1e-290,
    },
}  # fmt: skip


def options_of(name: str, classes: int) -> dict[str, Any]:
    """The options of that name, with weights for each class and row of about that size."""
    options, rng = dict(OPTIONS[name]), np.random.default_rng(1)
    for weight, count in (("weight", classes), ("sample_weight", ROWS)):
        if weight in options:
            options[weight] = options[weight] * (1 + rng.random(count))
    return options


def hold(logits: Array, labels: Array, axis: int, options: dict[str, Any]) -> None:
    """Compares all outputs with the oracle; the classes lie along ``axis``."""
    logits, soft = np.array(logits if axis else logits.T, order="C"), labels.dtype.kind not in "iu"
    if soft and axis == 0:
        labels = np.array(labels.T, order="C")
    scaling = {name: options[name] for name in ("temperature", "softcap") if name in options}
    given = {"class_axis": axis, **options}
    want = {
        "per_element": oracle.cross_entropy(logits, labels, reduction="none", **given),
        "log_sum_exp": oracle.log_sum_exp(logits, axis, **scaling),
        "entropy": oracle.entropy(logits, axis, **scaling),
        "prediction": oracle.prediction(logits, axis),
        "log_probs": oracle.log_softmax(logits, axis, **scaling),
        "gradient": oracle.gradient(logits, labels, reduction="none", **given),
    }
    if not soft:
        want["rank"] = oracle.rank(logits, labels, class_axis=axis)
    got = kernels.cross_entropy(
        logits, labels, reduction="none", outputs=list(want), check_probabilities=False, **given
    )
    for name in want:
        # The cap is a logit's error as well, and a gradient is in the weights' size.
        scale = 1e30 if "softcap" in options else float(np.max(options.get("weight", 1.0)))
        scale = max(scale, 1.0) / (options.get("temperature", 1.0) if name == "gradient" else 1.0)
        oracle.assert_close(got[name], want[name], scale)


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_output(name: str, soft: bool, dtype: dtypes.DType) -> None:
    for classes in (1, 2, 60, 300) if dtype in WIDE else (2, 60):
        rng = np.random.default_rng(classes)
        logits = zoo.cast(rng.choice(SHARES, (ROWS, classes)) * largest(dtype), dtype)
        labels = rng.integers(0, classes, ROWS)
        labels[-1] = -100
        if soft:
            labels = zoo.cast(rng.random((ROWS, classes)) / classes, dtype)
        for axis in (1, 0):
            hold(logits, labels, axis, options_of(name, classes))


@pytest.mark.parametrize("softcap", [None, 1e30])
@pytest.mark.parametrize("dtype", WIDE, ids=lambda dtype: dtype.name)
def test_the_ends_one_by_one(dtype: dtypes.DType, softcap: float | None) -> None:
    """Finite losses that were infinite: overflow in base 2, not in nats."""
    top = largest(dtype)
    most = np.array([[0.83 * top, 0]], dtype.numpy)
    options: dict[str, Any] = {} if softcap is None else {"softcap": softcap}
    scale = 1.0 if softcap is None else softcap
    for logits, label in ((most, 1), (-most, 0)):
        labels, half = np.array([label]), logits / 2
        for given, more in (
            (logits, {}),
            (half, {"temperature": 0.5}),
            (logits, {"label_smoothing": 0.1}),
            (logits, {"label_smoothing": 0.1, "weight": np.array([0.5, 0.25])}),
        ):
            want = oracle.cross_entropy(given, labels, **more, **options)
            oracle.assert_close(
                kernels.cross_entropy(given, labels, **more, **options), want, scale
            )
        oracle.assert_close(
            kernels.log_softmax(logits, **options), oracle.log_softmax(logits, **options), scale
        )


@pytest.mark.parametrize("dtype", WIDE, ids=lambda dtype: dtype.name)
def test_a_mean_is_finite_where_its_sum_is_not(dtype: dtypes.DType) -> None:
    rows = 5000  # more than a tile, and blocks enough to add
    logits = np.zeros((rows, 2), dtype.numpy)
    logits[:, 0] = 0.8 * largest(dtype)
    logits[::2] *= dtype.numpy.type(0.5)
    labels = np.ones(rows, np.int64)
    want = oracle.cross_entropy(logits, labels)
    oracle.assert_close(kernels.cross_entropy(logits, labels), want)
    assert kernels.cross_entropy(logits, labels, reduction="sum") == np.inf
    weight = np.array([1.0, 1e-3])
    oracle.assert_close(
        kernels.cross_entropy(logits, labels, weight=weight),
        oracle.cross_entropy(logits, labels, weight=weight),
    )
    fed, other = kernels.LossAccumulator(), kernels.LossAccumulator()
    fed.update(logits[:1700], labels[:1700])
    other.update(logits[1700:], labels[1700:])
    fed.merge(other)
    oracle.assert_close(fed.result(), want)


def test_small_probabilities_are_not_nothing() -> None:
    """float64 has 1e-300: softmax and gradient ended where float32's numbers do."""
    logits = np.array([[0.0, -100.0, -690.0], [5.0, 5.0, -400.0]])
    want = oracle.softmax(logits).astype(np.float64)
    np.testing.assert_allclose(kernels.softmax(logits), want, rtol=1e-12)
    columns = kernels.softmax(np.array(logits.T, order="C"), class_axis=0)
    np.testing.assert_allclose(columns.T, want, rtol=1e-12)
    labels = np.zeros(2, np.int64)
    got = kernels.cross_entropy(logits, labels, outputs=["gradient"])["gradient"]
    expected = oracle.gradient(logits, labels).astype(np.float64)
    np.testing.assert_allclose(got[:, 2], expected[:, 2], rtol=1e-12)


CAPS = [1e-30, 1e-3, 1.0, 30.0, 1e30]


@pytest.mark.parametrize("softcap", CAPS)
@pytest.mark.parametrize("axis", [1, 0], ids=["rows", "planes"])
def test_ranks_are_of_the_logits_as_given(axis: int, softcap: float, dtype: dtypes.DType) -> None:
    """Only equal logits tie, also where tanh saturates."""
    rng = np.random.default_rng(7)
    for classes in (5, 60, 300):
        logits = rng.normal(0, 1, (12, classes)) * np.logspace(-2, 4, 12)[:, None]
        logits[::4] = np.round(logits[::4])  # with ties
        logits[1::4, :2], logits[2, 3], logits[3] = 60000.0, np.inf, -np.inf
        logits[5, -1] = np.nan
        logits = zoo.cast(logits, dtype)
        labels = rng.integers(0, classes, 12)
        labels[6] = -100
        lying = np.array(logits if axis else logits.T, order="C")
        for temperature in (1.0, 1e-30):
            got = kernels.cross_entropy(
                lying, labels, class_axis=axis, softcap=softcap, temperature=temperature,
                outputs=["rank", "prediction"],
            )  # fmt: skip
            np.testing.assert_array_equal(got["prediction"], oracle.prediction(logits))
            np.testing.assert_array_equal(got["rank"], oracle.rank(logits, labels))


@pytest.mark.parametrize("axis", [1, 0], ids=["rows", "planes"])
@pytest.mark.parametrize("dtype", WIDE, ids=lambda dtype: dtype.name)
def test_a_gradient_near_the_cap_keeps_its_digits(dtype: dtypes.DType, axis: int) -> None:
    """1 - tanh(z)**2 is 8e-9 at 10: float32 makes 0 of it, or 1e-7."""
    logits = (np.linspace(-12, 12, 48).reshape(4, 12) * 30).astype(dtype.numpy)
    labels = np.array([1, 5, 0, 11])
    lying = np.array(logits if axis else logits.T, order="C")
    got = kernels.cross_entropy(
        lying, labels, class_axis=axis, softcap=30.0, temperature=30.0, outputs=["gradient"]
    )["gradient"]
    want = oracle.gradient(lying, labels, class_axis=axis, softcap=30.0, temperature=30.0)
    relative = 3e-5 if dtype is dtypes.FLOAT32 else 1e-12
    np.testing.assert_allclose(got, want.astype(dtype.numpy), rtol=relative)
