"""An error budget: against the truth, the kernels may be no worse than the plain computation in
the same dtype, plus a unit in the result's last place, or two in float64: the kernels work in base
2, which is one rounding more, and there nothing wider hides it. The losses, which are what we sell,
get half of that. The pattern is from apple/ml-cross-entropy.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import oracle, zoo
from tests.oracle import Array

# Even; odd rows; odd everything. Narrow, ordinary, a language model's.
SHAPES = [
    (64, 10), (63, 10), (63, 9),
    (64, 512), (63, 512), (63, 511),
    (8, 32768), (7, 32768), (7, 32769),
]  # fmt: skip


def plain(logits: Array) -> Array:
    """``x - max - log(sum(exp(x - max)))`` with every step in the array's own dtype."""
    shifted = logits - logits.max(1, keepdims=True)
    total = np.exp(shifted).sum(1, keepdims=True, dtype=logits.dtype)
    return np.asarray(shifted - np.log(total))


def error(answer: Array, truth: Array) -> float:
    """The largest one."""
    return float(np.abs(answer.astype(np.longdouble) - truth).max())


def allowed(dtype: dtypes.DType) -> int:
    """Units in the last place of the largest log-probability."""
    return 2 if dtype is dtypes.FLOAT64 else 1


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_worse_than_the_plain_computation(
    shape: tuple[int, int], scale: float, dtype: dtypes.DType
) -> None:
    rng = np.random.default_rng(shape[1])
    logits = zoo.cast(rng.normal(0, scale, shape), dtype)
    labels = rng.integers(0, shape[1], shape[0])
    truth = oracle.log_softmax(logits)
    own = logits.view(ml_dtypes.bfloat16) if dtype is dtypes.BFLOAT16 else logits
    reference = plain(own)
    unit = np.spacing(np.abs(truth).max().astype(dtype.result))

    ours = kernels.log_softmax(logits)
    assert error(ours, truth) <= error(reference, truth) + allowed(dtype) * unit
    mean_error = np.abs(ours - truth).mean()
    assert mean_error <= np.abs(reference.astype(np.longdouble) - truth).mean() + unit / 4

    rows = np.arange(shape[0])
    losses = kernels.cross_entropy(logits, labels, reduction="none")
    budget = error(reference[rows, labels], truth[rows, labels]) + allowed(dtype) * unit / 2
    assert error(losses, -truth[rows, labels]) <= budget

    probabilities = np.exp(truth)
    budget = error(np.exp(reference.astype(np.longdouble)), probabilities)
    ours = kernels.softmax(logits)
    assert error(ours, probabilities) <= budget + np.finfo(dtype.result).eps / 2
    np.testing.assert_allclose(ours.sum(1, dtype=np.float64), 1, rtol=2e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_classes_first_are_no_worse(shape: tuple[int, int], dtype: dtypes.DType) -> None:
    rng = np.random.default_rng(shape[1])
    logits = zoo.cast(rng.normal(0, 3, shape), dtype)
    truth = oracle.log_softmax(logits)
    own = logits.view(ml_dtypes.bfloat16) if dtype is dtypes.BFLOAT16 else logits
    unit = np.spacing(np.abs(truth).max().astype(dtype.result))
    columns = np.array(logits.T, order="C")
    ours = kernels.log_softmax(columns, class_axis=0).T
    assert error(ours, truth) <= error(plain(own), truth) + allowed(dtype) * unit
