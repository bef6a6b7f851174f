"""Error of divergences in float32 where one class, late in the row, has most of the probability.

Shifts are guessed from a row's first classes. Each guess may be off by some bits, and by others on
the other side: such rows were off by up to 6.4e-6.
"""

from __future__ import annotations

import numpy as np
import pytest

import kernels
from tests import divergence_oracle
from tests.oracle import Array

ROWS, CLASSES = 48, 8192
LARGEST = 7.5e-7  # relative to max(1, divergence)


def _log_probs(logits: Array) -> Array:
    wide = logits.astype(np.float64)
    return np.asarray(wide - np.log(np.exp(wide).sum(1, keepdims=True)))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("place", [5000, 1000, CLASSES - 1])
@pytest.mark.parametrize("apart", [0.0, 2.5, 5.0])
def test_a_late_likeliest_class(direction: str, place: int, apart: float) -> None:
    """``apart`` is the most by which the two sides' logits of that class differ."""
    rng = np.random.default_rng(place)
    teacher = rng.standard_normal((ROWS, CLASSES), np.float32)
    teacher[:, place] += np.linspace(6, 14, ROWS, dtype=np.float32)
    student = teacher + 0.2 * rng.standard_normal(teacher.shape, np.float32)
    student[:, place] += rng.permutation(np.linspace(-apart, apart, ROWS, dtype=np.float32))
    got = kernels.kl_div(student, teacher, reduction="none", direction=direction).ravel()
    want = divergence_oracle.of_logs(_log_probs(teacher), _log_probs(student), direction)
    assert (np.abs(got - want) / np.maximum(1.0, want)).max() < LARGEST
