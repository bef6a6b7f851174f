"""The project's oldest test: four rows, five classes, and three routes to one loss."""

from __future__ import annotations

import math

import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import zoo
from tests.oracle import Array

PRED = np.array(
    [[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [1, 3, 2, 3, 0], [0, 0, 0, 0, 0]], dtype=np.float32
)
TARGET = np.array([1, 4, 3, 2])
LOG_SOFTMAX = [
    [-1.6094, -1.6094, -1.6094, -1.6094, -1.6094],
    [-2.1326, -2.1326, -1.1326, -1.1326, -2.1326],
    [-2.9373, -0.9373, -1.9373, -0.9373, -3.9373],
    [-1.6094, -1.6094, -1.6094, -1.6094, -1.6094],
]


def by_formula(logits: Array, one_hot: Array) -> float:
    """``-sum(one_hot * log_softmax) / n``, where ``n`` counts the labels."""
    log_probs = kernels.log_softmax(logits)
    total = float((one_hot * log_probs.astype(np.float64)).sum())
    return -total / float(logits.size // logits.shape[1])


def test_log_softmax_to_four_digits(dtype: dtypes.DType) -> None:
    log_probs = kernels.log_softmax(zoo.cast(PRED, dtype))
    assert log_probs.dtype == dtype.result
    assert np.round(log_probs.astype(np.float64), 4).tolist() == LOG_SOFTMAX


def test_loss_to_four_digits(dtype: dtypes.DType) -> None:
    logits = zoo.cast(PRED, dtype)
    per_element = kernels.cross_entropy(logits, TARGET, reduction="none")
    assert np.round(per_element.astype(np.float64), 4).tolist() == [1.6094, 2.1326, 0.9373, 1.6094]
    assert round(float(kernels.cross_entropy(logits, TARGET)), 4) == 1.5722


def test_indifferent_logits_cost_ln_c(dtype: dtypes.DType) -> None:
    loss = kernels.cross_entropy(zoo.cast(np.zeros((4, 5)), dtype), TARGET)
    assert float(loss) == pytest.approx(math.log(5), rel=2e-7)


def test_three_routes_agree(dtype: dtypes.DType) -> None:
    logits = zoo.cast(PRED, dtype)
    formula = by_formula(logits, np.eye(5)[TARGET])
    likelihood = kernels.nll_loss(kernels.log_softmax(logits), TARGET)
    direct = kernels.cross_entropy(logits, TARGET)
    assert [float(likelihood), float(direct)] == pytest.approx([formula] * 2, rel=1e-6)


def test_three_routes_agree_in_four_dimensions_and_swapped_axes_do_not() -> None:
    rng = np.random.default_rng(42)
    logits = rng.random((4, 3, 256, 256), dtype=np.float32)
    # Half of the labels are what the logits say: else one shuffle of them costs as much as another.
    labels = np.where(rng.random((4, 256, 256)) < 0.5, logits.argmax(1), 1)
    one_hot = np.eye(3)[labels]  # (N, H, W, C)

    direct = float(kernels.cross_entropy(logits, labels))
    likelihood = float(kernels.nll_loss(kernels.log_softmax(logits), labels))
    moved = by_formula(logits, np.moveaxis(one_hot, -1, 1))
    swapped = by_formula(logits, np.swapaxes(one_hot, 1, 3))

    assert [likelihood, moved] == pytest.approx([direct] * 2, rel=1e-6)
    assert abs(swapped - direct) > 0.05 * direct
