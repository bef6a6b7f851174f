"""The same bits, whatever the threads, the batch around a row, the labels' width or the address."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import zoo
from tests.oracle import Array

# Few long rows, many short ones, classes strided: each is split over threads in another way.
SHAPES = [(37, 4001), (20_011, 7), (3, 19, 2003), (2, 3, 61, 67)]
MANY = 5  # threads, on however few cores


@functools.cache
def problem(shape: tuple[int, ...], dtype: dtypes.DType) -> tuple[Array, Array, Array, Array]:
    """Seeded logits, labels, probabilities and weights."""
    rng = np.random.default_rng(shape[1])
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    labels[rng.random(labels.shape) < 0.1] = -100
    logits, soft = zoo.cast(rng.normal(0, 4, shape), dtype), zoo.cast(rng.random(shape), dtype)
    return logits, labels, soft, zoo.cast(rng.random((shape[1],)), dtype)


def answers(shape: tuple[int, ...], dtype: dtypes.DType) -> str:
    """A digest of everything that the kernels compute from one problem."""
    logits, labels, soft, weight = problem(shape, dtype)
    both = ["loss", "per_element"]
    found = [kernels.log_softmax(logits), kernels.softmax(logits)]
    for target in (labels, soft):
        for options in ({}, {"weight": weight, "label_smoothing": 0.1}, {"reduction": "sum"}):
            found += kernels.cross_entropy(
                logits, target, outputs=both, check_probabilities=False, **options
            ).values()
    found += kernels.nll_loss(found[0], labels, outputs=both).values()
    return hashlib.sha256(b"".join(array.tobytes() for array in found)).hexdigest()


def all_answers() -> list[str]:
    return [answers(shape, dtype) for shape in SHAPES for dtype in dtypes.FLOATS]


def print_for_every_thread_count() -> None:
    """Program of the subprocess below."""
    for threads in range(1, MANY + 1):
        numba.set_num_threads(threads)
        print(*all_answers())


def test_any_number_of_threads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import *; print_for_every_thread_count()"],
        cwd=Path(__file__).parents[2], env=os.environ | {"NUMBA_NUM_THREADS": str(MANY)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == MANY
    assert set(lines) == {" ".join(all_answers())}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_repeat(shape: tuple[int, ...], dtype: dtypes.DType) -> None:
    assert len({answers(shape, dtype) for _ in range(10)}) == 1


@pytest.mark.parametrize("classes", [3, 10, 33, 1000, 4099])
def test_a_row_does_not_know_its_batch(classes: int, dtype: dtypes.DType) -> None:
    """A request in chunks has the bits of the whole request."""
    rng = np.random.default_rng(classes)
    logits = zoo.cast(rng.normal(0, 4, (101, classes)), dtype)
    labels = rng.integers(0, classes, 101)

    def everything(part: slice) -> tuple[Array, ...]:
        rows, targets = logits[part], labels[part]
        plain = kernels.cross_entropy(rows, targets, reduction="none")
        smooth = kernels.cross_entropy(rows, targets, reduction="none", label_smoothing=0.1)
        return plain, smooth, kernels.log_softmax(rows), kernels.softmax(rows)

    whole = everything(slice(None))
    for step in (1, 7, 16, 50):
        chunks = [everything(slice(start, start + step)) for start in range(0, 101, step)]
        for index, array in enumerate(whole):
            assert np.concatenate([chunk[index] for chunk in chunks]).tobytes() == array.tobytes()


def test_a_pixel_does_not_know_its_image(dtype: dtypes.DType) -> None:
    rng = np.random.default_rng(0)
    logits = zoo.cast(rng.normal(0, 4, (2, 19, 301)), dtype)
    labels = rng.integers(0, 19, (2, 301))
    whole = kernels.cross_entropy(logits, labels, reduction="none")
    for start, stop in [(0, 1), (0, 64), (1, 66), (5, 301), (300, 301), (128, 257)]:
        part = kernels.cross_entropy(
            logits[:, :, start:stop], labels[:, start:stop], reduction="none"
        )
        assert part.tobytes() == whole[:, start:stop].tobytes()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_address_and_any_label_width(shape: tuple[int, ...], dtype: dtypes.DType) -> None:
    """Formats place tensors at other offsets, and carry labels in other types."""
    rng = np.random.default_rng(1)
    logits = zoo.cast(rng.normal(0, 4, shape), dtype)
    labels = rng.integers(0, min(shape[1], 127), (shape[0], *shape[2:]))
    both = ["loss", "per_element"]
    first = kernels.cross_entropy(logits, labels, outputs=both)
    for place in ("whole", "misaligned", "read_only"):
        for integer in dtypes.INTEGERS:
            lying = zoo.LAYOUTS[place](logits)
            again = kernels.cross_entropy(lying, labels.astype(integer.numpy), outputs=both)
            assert all(again[name].tobytes() == first[name].tobytes() for name in both)


def test_per_element_is_what_the_loss_is_made_of(dtype: dtypes.DType) -> None:
    """The same bits with every reduction, alone or beside the loss."""
    rng = np.random.default_rng(2)
    logits = zoo.cast(rng.normal(0, 4, (501, 17)), dtype)
    labels = rng.integers(0, 17, 501)
    alone = kernels.cross_entropy(logits, labels, reduction="none")
    for reduction in ("none", "mean", "sum"):
        given = kernels.cross_entropy(
            logits, labels, reduction=reduction, outputs=["loss", "per_element"]
        )
        assert given["per_element"].tobytes() == alone.tobytes()
        loss = kernels.cross_entropy(logits, labels, reduction=reduction)
        assert given["loss"].tobytes() == loss.tobytes()
