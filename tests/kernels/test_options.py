"""Temperature, softcap, z-loss, sample weights and the older options: alone and all together.

Errors are relative to max(1, |value|), in units of ``oracle.TOLERANCE``, times what a unit of error
in a log-probability grows to: by the weights it is multiplied by, the terms it is added to, and,
since tanh is computed to 1.5e-7 and not to 1.5e-7 of the logit, by softcap / temperature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import oracle, zoo
from tests.oracle import Array

Layout = Callable[[Array], Array]
X = np.array([[1, 2, 3], [0.5, -1, 2]], np.float32)
Y = np.array([2, 0])
SHAPES = [((40, 33), 1), ((33, 40), 0), ((5, 300), 1), ((3, 19, 7, 5), 1), ((2, 3, 21, 6), 2)]
SHAPES += [((4, 5, 6, 21), 3), ((3, 5000), 1), ((200,), 0)]


def scale_of(example: zoo.Example, reduction: str) -> float:
    """Growth of an error of 1 in a tanh; weights are at most 2, probabilities sum to 2."""
    terms = max(1, example.labels.size) if reduction == "sum" else 1
    return 8.0 * example.softened() * terms


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize("options", zoo.OPTIONS)
def test_each_option_and_all(options: str, soft: bool, dtype: dtypes.DType) -> None:
    for shape, axis in SHAPES:
        example = zoo.example(shape, axis, dtype, options, soft=soft)
        for reduction in ("none", "mean", "sum"):
            logits, labels, values = example
            want = oracle.cross_entropy(logits, labels, reduction=reduction, **values)
            got = kernels.cross_entropy(logits, labels, reduction=reduction, **values)
            oracle.assert_close(got, want, scale_of(example, reduction))


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
def test_all_options_in_every_layout(layout: Layout, soft: bool, dtype: dtypes.DType) -> None:
    for shape, axis in [((9, 33), 1), ((5, 33, 6), 0), ((5, 33, 6), 1), ((2, 3, 4, 19), 3)]:
        example = zoo.example(shape, axis, dtype, "all", soft=soft)
        want = oracle.cross_entropy(example[0], example[1], reduction="none", **example[2])
        logits, labels, options = example.lying(layout)
        got = kernels.cross_entropy(logits, labels, reduction="none", **options)
        oracle.assert_close(got, want, scale_of(example, "none"))


@pytest.mark.parametrize("softcap", [None, 0.5, 30.0])
@pytest.mark.parametrize("temperature", [1.0, 0.1, 7.0])
def test_softmax_of_scaled_logits(
    temperature: float, softcap: float | None, dtype: dtypes.DType
) -> None:
    logits = zoo.cast(np.random.default_rng(0).normal(0, 20, (7, 133)), dtype)
    options: dict[str, Any] = {"temperature": temperature, "softcap": softcap}
    scale = max(1.0, softcap or 0.0) / min(1.0, temperature)
    for lying, axis in ((logits, 1), (np.array(logits.T, order="C"), 0)):
        want = oracle.log_softmax(lying, axis, **options)
        oracle.assert_close(kernels.log_softmax(lying, class_axis=axis, **options), want, scale)
        got = kernels.softmax(lying, class_axis=axis, **options)
        oracle.assert_close(got, np.exp(want), scale)


def test_options_at_rest_change_no_bit(dtype: dtypes.DType) -> None:
    logits, labels, _ = zoo.example((40, 300), 1, dtype, "plain")
    names = zoo.compiled(zoo.outputs(), dtype)
    plain = kernels.cross_entropy(logits, labels, outputs=names)
    rest = kernels.cross_entropy(
        logits, labels, temperature=1, softcap=None, z_loss=0, sample_weight=None, outputs=names
    )
    assert [rest[name].tobytes() for name in names] == [plain[name].tobytes() for name in names]


def test_ones_for_weights_change_no_loss(dtype: dtypes.DType) -> None:
    logits, labels, _ = zoo.example((40, 30), 1, dtype, "plain")
    for reduction in ("none", "mean", "sum"):
        plain = kernels.cross_entropy(logits, labels, reduction=reduction)
        for name, size in (("sample_weight", 40), ("weight", 30)):
            ones: dict[str, Any] = {name: np.ones(size), "reduction": reduction}
            got = kernels.cross_entropy(logits, labels, **ones)
            assert got.tobytes() == plain.tobytes()


def test_worked_by_hand() -> None:
    """Two logits, 0 and ln 3: probabilities 1/4 and 3/4, log-sum-exp ln 4."""
    logits, label = np.array([[0.0, math.log(3)]]), np.array([0])

    def loss(**options: Any) -> float:
        return float(kernels.cross_entropy(logits, label, **options))

    assert loss() == pytest.approx(math.log(4), rel=1e-15)
    assert loss(z_loss=0.5) == pytest.approx(math.log(4) + 0.5 * math.log(4) ** 2, rel=1e-15)
    # ln 3 / (ln 3 / ln 2) is ln 2: probabilities 1/3 and 2/3.
    assert loss(temperature=math.log(3) / math.log(2)) == pytest.approx(math.log(3), rel=1e-15)
    cap = 2.0
    capped = cap * math.tanh(math.log(3) / cap)
    assert loss(softcap=cap) == pytest.approx(math.log1p(math.exp(capped)), rel=1e-15)


def test_sample_weights_count_in_the_mean() -> None:
    """As if a row of weight 2 were there twice, and one of weight 0 were not."""
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(0, 3, (4, 9)), np.array([3, 8, -100, 1])
    sample_weight = np.array([2, 0, 5, 1])
    rows = [0, 0, 3]
    tried: list[dict[str, Any]] = [{}, {"weight": rng.random(9)}]
    tried += [{"z_loss": 0.1}, {"label_smoothing": 0.1}]
    for options in tried:
        got = kernels.cross_entropy(logits, labels, sample_weight=sample_weight, **options)
        want = kernels.cross_entropy(logits[rows], labels[rows], **options)
        assert float(got) == pytest.approx(float(want), rel=1e-14)


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
def test_samples_that_weigh_nothing(soft: bool) -> None:
    labels = np.abs(X) if soft else Y
    options: dict[str, Any] = {"sample_weight": np.zeros(2)}
    assert np.isnan(kernels.cross_entropy(X, labels, **options))
    assert kernels.cross_entropy(X, labels, reduction="sum", **options) == 0
    assert kernels.cross_entropy(X, labels, empty="zero", **options) == 0
    with pytest.raises(kernels.InvalidInput):
        kernels.cross_entropy(X, labels, empty="error", **options)


def test_nll_loss_takes_sample_weights(dtype: dtypes.DType) -> None:
    logits, labels, options = zoo.example((50, 7, 3), 1, dtype, "sample_weight")
    for reduction in ("none", "mean", "sum"):
        want = oracle.nll_loss(logits, labels, reduction="none", class_axis=1)
        samples = oracle.widen(options["sample_weight"])
        want = want * samples
        if reduction != "none":
            divisor = (samples * (labels != -100)).sum() if reduction == "mean" else 1
            want = np.asarray(want.sum() / divisor)
        got = kernels.nll_loss(logits, labels, reduction=reduction, **options)
        oracle.assert_close(got, want, scale=1.0 if reduction == "none" else 500)


@pytest.mark.parametrize("softcap", [1e-30, 1e-3, 1e3, 1e30])
@pytest.mark.parametrize("temperature", [1e-30, 1e-3, 1e3, 1e30])
def test_options_at_their_ends(temperature: float, softcap: float, dtype: dtypes.DType) -> None:
    """Of logits of every size. The error stays that of the capped logits, 1.5e-7 of the cap."""
    rng = np.random.default_rng(2)
    logits = zoo.cast(rng.normal(0, 1, (6, 40)) * np.logspace(-6, 4, 6)[:, None], dtype)
    labels = rng.integers(0, 40, 6)
    options: dict[str, Any] = {"temperature": temperature, "reduction": "none"}
    for cap in (None, softcap):
        lying = {"softcap": cap, **options}
        want = oracle.cross_entropy(logits, labels, **lying)
        scale = 1.0 if cap is None else min(cap, 1e5) / temperature
        oracle.assert_close(kernels.cross_entropy(logits, labels, **lying), want, scale)
        columns = np.array(logits.T, order="C")
        got = kernels.cross_entropy(columns, labels, class_axis=0, **lying)
        oracle.assert_close(got, want, scale)


@pytest.mark.parametrize("dtype", zoo.WITH_SOFTCAP, ids=lambda dtype: dtype.name)
def test_a_cap_makes_infinities_finite(dtype: dtypes.DType) -> None:
    """The tanh of an infinity is 1; but a NaN is a NaN."""
    logits = np.random.default_rng(3).normal(0, 3, (40, 70))
    logits[::3, 5], logits[1::3, 66], logits[7], logits[8] = np.inf, -np.inf, -np.inf, np.inf
    logits[9, 0] = np.nan
    logits = zoo.cast(logits, dtype)
    labels = np.full(40, 66)
    options: dict[str, Any] = {"softcap": 4.0, "z_loss": 0.1, "reduction": "none"}
    want = oracle.cross_entropy(logits, labels, **options)
    assert np.flatnonzero(~np.isfinite(want)).tolist() == [9]
    oracle.assert_close(kernels.cross_entropy(logits, labels, **options), want, 4.0)
    columns = np.array(logits.T, order="C")
    got = kernels.cross_entropy(columns, labels, class_axis=0, **options)
    oracle.assert_close(got, want, 4.0)


def test_z_loss_of_what_has_no_log_sum_exp(dtype: dtypes.DType) -> None:
    """The log-probability is NaN already; an ignored row costs nothing, whatever it holds."""
    logits = zoo.cast(np.array([[np.inf, 0], [-np.inf, -np.inf], [np.nan, 0], [0, 0]]), dtype)
    for labels, lost in ((np.zeros(4, int), [True] * 3), (np.array([-100] * 3 + [0]), [False] * 3)):
        got = kernels.cross_entropy(logits, labels, z_loss=0.1, reduction="none")
        assert np.isnan(got).tolist() == [*lost, False]
        assert got[3] == pytest.approx(math.log(2) + 0.1 * math.log(2) ** 2, rel=1e-6)


def test_losses_too_large_for_their_type_are_infinite() -> None:
    """3e38 - -3e38 is 6e38; and nobody is warned of it."""
    logits = np.array([[3e38, -3e38]], np.float32)
    for reduction in ("none", "mean", "sum"):
        assert kernels.cross_entropy(logits, np.array([1]), reduction=reduction) == np.inf
        got = kernels.cross_entropy(logits, np.array([0]), reduction=reduction, z_loss=1.0)
        assert got == np.inf
    assert kernels.cross_entropy(logits, np.array([1]), temperature=10) == np.float32(6e37)


WRONG: dict[str, list[Any]] = {
    "temperature": [0, -1, math.nan, math.inf, 1e-31, 1e31, "hot", None, [1, 2]],
    "softcap": [0, -30, math.nan, math.inf, 1e-31, 1e31, "high"],
    "z_loss": [-1e-4, math.nan, math.inf, "much", None],
    "sample_weight": [
        np.ones(3),
        np.ones((2, 1)),
        np.ones(()),
        np.array([1, math.nan]),
        np.array([math.inf, 1]),
        np.array([True, False]),
        np.array(["1", "2"]),
        np.ones(2, complex),
    ],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, row in WRONG.items() for value in row], ids=repr
)
def test_wrong_values_name_the_option(name: str, value: Any) -> None:
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(X, Y, **{name: value})
    assert caught.value.field == name
    assert name in caught.value.message


def test_the_wrong_sample_weight_is_named() -> None:
    weights = np.ones((2, 4))
    weights[1, 2] = math.nan
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(
            np.zeros((2, 3, 4), np.float32), np.zeros((2, 4), int), sample_weight=weights
        )
    assert caught.value.position == (1, 2)


@pytest.mark.parametrize("other", [*dtypes.FLOATS, *dtypes.INTEGERS], ids=lambda row: row.name)
def test_sample_weights_of_any_type(other: dtypes.DType, dtype: dtypes.DType) -> None:
    logits, labels, _ = zoo.example((6, 7), 1, dtype, "plain")
    values = np.array([0, 1, 2, 3, 1, 0])
    want = kernels.cross_entropy(logits, labels, sample_weight=values.astype(np.float64))
    got = kernels.cross_entropy(logits, labels, sample_weight=zoo.cast(values, other))
    assert got.tobytes() == want.tobytes()
