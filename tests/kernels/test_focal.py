"""The focal factor: values, the gradient, its edges, and that 0 is no factor at all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import oracle, zoo
from tests.oracle import Array

SHAPES = [((37, 10), 1), ((5, 300), 1), ((3, 19, 7), 1), ((40, 1), 1), ((2, 4200), 1)]


def finite_differences(logits: Array, labels: Array, **options: Any) -> Array:
    """Central differences of the oracle's loss, in extended precision."""
    wide, step = logits.astype(np.longdouble), np.longdouble(1e-6)
    slopes = np.empty(wide.shape, np.longdouble)
    for at in np.ndindex(*wide.shape):
        up, down = wide.copy(), wide.copy()
        up[at] += step
        down[at] -= step
        ends = [oracle.cross_entropy(x, labels, reduction="sum", **options) for x in (up, down)]
        slopes[at] = (ends[0] - ends[1]) / (2 * step)
    return slopes


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize("options", ["plain", "weight", "label_smoothing", "all"])
@pytest.mark.parametrize("focal", [0.5, 2.0])
def test_values(focal: float, options: str, soft: bool, dtype: dtypes.DType) -> None:
    for shape, axis in SHAPES:
        logits, labels, given = zoo.example(shape, axis, dtype, options, soft=soft)
        for reduction in ("mean", "none"):
            got = kernels.cross_entropy(logits, labels, focal=focal, reduction=reduction, **given)
            want = oracle.cross_entropy(logits, labels, focal=focal, reduction=reduction, **given)
            oracle.assert_close(got, want, 8.0)


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize("options", ["plain", "weight", "label_smoothing", "all"])
@pytest.mark.parametrize("focal", [0.5, 1.0, 3.0])
def test_gradient_by_finite_differences(focal: float, options: str, soft: bool) -> None:
    for shape, axis in [((4, 6), 1), ((2, 5, 3), 1)]:
        logits, labels, given = zoo.example(shape, axis, dtypes.FLOAT64, options, soft=soft)
        got = kernels.cross_entropy(
            logits, labels, focal=focal, reduction="sum", outputs=["gradient"], **given
        )
        want = finite_differences(logits, labels, focal=focal, **given)
        np.testing.assert_allclose(got["gradient"], want.astype(float), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
def test_gradient_of_careful_positions(soft: bool) -> None:
    """Of the same values, shifted to where float32 has no shift, and so by the other kernels."""
    logits, labels, given = zoo.example((4, 6), 1, dtypes.FLOAT64, "all", soft=soft)
    given.pop("softcap")
    options = {**given, "z_loss": 0.0, "focal": 1.5, "outputs": ["gradient", "loss"]}
    near = kernels.cross_entropy(logits, labels, **options)
    far = kernels.cross_entropy(logits + 2.0**30, labels, **options)
    np.testing.assert_allclose(far["gradient"], near["gradient"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(far["loss"], near["loss"], rtol=1e-5)


def test_closed_form() -> None:
    """-(1-p)**g * log(p), and its derivative by the label's logit."""
    x = np.array([[2.0, -1.0, 0.5]])
    p = np.exp(x[0]) / np.exp(x[0]).sum()
    for y in range(3):
        got = kernels.cross_entropy(x, [y], focal=2, outputs=["loss", "gradient"])
        np.testing.assert_allclose(got["loss"], -((1 - p[y]) ** 2) * np.log(p[y]))
        slope = (1 - p[y]) ** 2 * (2 * p[y] * np.log(p[y]) - (1 - p[y]))
        np.testing.assert_allclose(got["gradient"][0, y], slope)


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
def test_zero_is_no_factor(soft: bool, dtype: dtypes.DType) -> None:
    logits, labels, given = zoo.example((40, 33), 1, dtype, "all", soft=soft)
    plain = kernels.cross_entropy(logits, labels, outputs=["per_element", "gradient"], **given)
    names: dict[str, Any] = {"outputs": ["per_element", "gradient"], "focal": 0.0}
    zero = kernels.cross_entropy(logits, labels, **names, **given)
    for name, array in plain.items():
        np.testing.assert_array_equal(zero[name], array)


@pytest.mark.parametrize("focal", [0.25, 1.0, 2.0])
def test_edges_have_their_limits(focal: float) -> None:
    """A label of probability 1 costs 0, and so does its gradient; one of probability 0 has one."""
    logits = np.array([[0.0, -np.inf, -np.inf], [0.0, -np.inf, 1.0], [3e4, 0.0, 0.0]])
    got = kernels.cross_entropy(
        logits, [0, 1, 0], focal=focal, reduction="none", outputs=["loss", "gradient"]
    )
    np.testing.assert_array_equal(got["loss"], [0, np.inf, 0])
    np.testing.assert_array_equal(got["gradient"][[0, 2]], 0)
    share = 1 / (1 + math.e)
    np.testing.assert_allclose(got["gradient"][1], [share, -1, 1 - share])


@pytest.mark.parametrize("focal", [-1.0, np.nan, np.inf, "two"])
def test_bad_input_is_named(focal: Any) -> None:
    with pytest.raises(kernels.InvalidInput, match="focal must be") as error:
        kernels.cross_entropy(np.zeros((1, 2), np.float32), [0], focal=focal)
    assert error.value.field == "focal"
