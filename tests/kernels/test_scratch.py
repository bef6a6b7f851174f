"""Nothing is read that was not written: see ``conftest``, which poisons what all tests here use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernels
from kernels import dtypes
from kernels.cpu import tile
from kernels.cpu.launch.loss import RUN
from kernels.cpu.launch.scratch import scratch_of
from kernels.cpu.launch.views import view_of
from kernels.cpu.plain.scratch import LOSS
from tests import oracle, zoo
from tests.kernels.conftest import NOWHERE
from tests.oracle import Array

# What only ``careful`` takes, and what it leaves to the others.
VALUES = np.array([-1e7, 1e7, -4e30, 4e30, 0.0, 1.0, -3.0, np.nan, np.inf, -np.inf])
# Options by name; each reads something else of a position's scratch.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "smoothing": {"label_smoothing": 0.3},
    "z_loss": {"z_loss": 1e-3},
    "sampled": {"sample_weight": np.arange(1.0, 1.0 + VALUES.size)},
    "capped": {"softcap": 20.0},
}


def test_scratch_is_poisoned(poisoned: bool) -> None:
    """The scratch that this thread keeps: what the last loss wrote, and NaN everywhere else."""
    if not poisoned:
        pytest.skip("LOSSD_POISON=0")
    logits = np.zeros((3, 7), np.float32)
    kernels.cross_entropy(logits, np.zeros(3, np.int64), z_loss=1.0, outputs=["loss"])
    view = view_of(logits, 1)
    assert view is not None
    scratch = scratch_of(1, RUN, view, dtypes.FLOAT32)
    assert np.isnan(scratch.tiles[0, tile.PUSH]).all()
    assert (scratch.labels[0, 3:] == NOWHERE).all()
    assert not np.isnan(scratch.tiles[0, tile.LOSS, :3]).any()
    assert np.isnan(scratch.floats).all()
    kernels.cross_entropy(logits, np.zeros(3, np.int64), outputs=["loss"])
    assert np.isnan(scratch.tiles[0, tile.LOSS]).all()
    assert not np.isnan(scratch.floats[0, LOSS, :3]).any()


def hold(logits: Array, labels: Array, axis: int, options: dict[str, Any]) -> None:
    lying = np.array(logits if axis else logits.T, order="C")
    soft = labels.dtype.kind not in "iu"
    unchecked: dict[str, Any] = {"check_probabilities": False}  # they are of any sum
    given = np.array(labels.T, order="C") if soft and axis == 0 else labels
    names = zoo.Example(logits, labels, options).outputs()
    got = kernels.cross_entropy(
        lying, given, class_axis=axis, outputs=names, **options, **unchecked
    )
    alone = kernels.cross_entropy(
        lying, given, class_axis=axis, reduction="none", **options, **unchecked
    )
    assert alone.tobytes() == got["per_element"].tobytes()
    want = oracle.cross_entropy(lying, given, class_axis=axis, reduction="none", **options)
    oracle.assert_close(alone, want, 40.0)
    with np.errstate(invalid="ignore"):
        want = oracle.gradient(lying, given, class_axis=axis, **options)
    oracle.assert_close(got["gradient"], want, 40.0)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("axis", [1, 0], ids=["rows", "planes"])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_few_classes_of_any_size(
    classes: int, axis: int, options: str, dtype: dtypes.DType
) -> None:
    """Of one class the loss is 0 whatever its logit; of NaN or an infinity it is NaN."""
    rng = np.random.default_rng(classes)
    logits = rng.choice(VALUES, (VALUES.size, classes))
    logits[:, 0] = VALUES
    logits = zoo.cast(logits, dtype)
    hold(logits, zoo.cast(rng.random((VALUES.size, classes)), dtype), axis, OPTIONS[options])
    labels = rng.integers(0, classes, VALUES.size)
    labels[::3] = -100
    hold(logits, labels, axis, OPTIONS[options])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_loss_of_one_class_is_nothing(kind: Any) -> None:
    got = kernels.cross_entropy(np.array([[-1e7]], kind), np.array([[1.0]], kind))
    assert got == 0
