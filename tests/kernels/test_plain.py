"""Losses in float32 registers (``cpu.plain``): what they cannot hold changes no other position."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernels
from kernels import InvalidInput, dtypes
from tests import oracle
from tests.oracle import Array

# Shapes and class axes of each kind of sum: transposed rows, rows together and alone, planes in
# long runs, in short ones, of more classes than a block, and tiles that begin within an image.
SHAPES: dict[str, tuple[tuple[int, ...], int]] = {
    "transposed": ((70, 10), 1),
    "transposed full": ((33, 16), 1),
    "rows": ((70, 17), 1),
    "rows below the guess": ((40, 31), 1),
    "rows with a tail": ((40, 100), 1),
    "few rows together": ((9, 1000), 1),
    "rows alone": ((3, 4096), 1),
    "rows of axes": ((5, 7, 12), 2),
    "planes": ((2, 3, 20, 30), 1),
    "planes in short runs": ((9, 19, 31), 1),
    "planes of many classes": ((1, 70, 300), 1),
    "planes that end in a short run": ((3, 5, 260), 1),
    "planes of one class": ((2, 1, 40), 1),
    "planes of a whole group": ((2, 6, 37), 1),
}
DTYPES = (dtypes.FLOAT32, dtypes.FLOAT16, dtypes.BFLOAT16)


def stored(numbers: Array, dtype: dtypes.DType) -> Array:
    if dtype is dtypes.BFLOAT16:
        bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32) >> 16
        return bits.astype(np.uint16).view(dtype.numpy)
    return numbers.astype(dtype.numpy)


def example(name: str, seed: int = 0) -> tuple[Array, Array, int]:
    """Logits of bfloat16's precision, labels of which some are ignored, and the class axis."""
    shape, axis = SHAPES[name]
    generator = np.random.default_rng(seed)
    numbers = (generator.integers(-96, 97, shape) / 8).astype(np.float32)
    labels = generator.integers(0, shape[axis], shape[:axis] + shape[axis + 1 :])
    labels.reshape(-1)[::7] = -100
    return numbers, labels, axis


def losses(logits: Array, labels: Array, axis: int, **options: Any) -> Array:
    got = kernels.cross_entropy(logits, labels, class_axis=axis, reduction="none", **options)
    assert isinstance(got, np.ndarray)
    return got


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("name", SHAPES)
def test_losses(name: str, dtype: dtypes.DType) -> None:
    numbers, labels, axis = example(name)
    got = losses(stored(numbers, dtype), labels, axis, temperature=0.7)
    want = oracle.cross_entropy(numbers, labels, class_axis=axis, reduction="none", temperature=0.7)
    error = np.abs(got - want) / np.maximum(1.0, np.abs(want))
    assert float(error.max()) < 7.5e-7
    assert (got[labels == -100] == 0.0).all()


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_lost_changes_no_neighbour(name: str) -> None:
    """NaN, infinities, huge numbers and poor guesses, each in a position of its own."""
    numbers, labels, axis = example(name)
    logits, classes = numbers.copy(), numbers.shape[axis]
    positions = np.moveaxis(logits, axis, -1)
    flat = np.arange(labels.size)
    wrong = flat[np.isin(flat % 11, (3, 5))]
    kinds = (np.nan, np.inf, 3e38, -3e38, 1e7, 60.0, -np.inf)
    for number, place in enumerate(wrong):
        index = np.unravel_index(int(place), labels.shape)
        positions[index][classes // 2 if number % 2 else slice(None)] = kinds[number % len(kinds)]
    got, alone = losses(logits, labels, axis), losses(numbers, labels, axis)
    kept = ~np.isin(flat, wrong)
    assert got.reshape(-1)[kept].tobytes() == alone.reshape(-1)[kept].tobytes()
    oracle.assert_close(
        got, oracle.cross_entropy(logits, labels, class_axis=axis, reduction="none"), 40.0
    )


def test_a_poor_guess_is_found() -> None:
    """The largest logit is after those that the guess reads, and is not the label's."""
    logits, labels = np.zeros((40, 300), np.float32), np.zeros(40, np.int64)
    logits[np.arange(40), 100 + np.arange(40)] = np.linspace(5, 100, 40)
    want = oracle.cross_entropy(logits, labels, reduction="none")
    oracle.assert_close(losses(logits, labels, 1), want, 4.0)


@pytest.mark.parametrize("classes", [2, 3, 9, 19])
def test_bits_do_not_depend_on_the_run(classes: int) -> None:
    """The same position in a long run, in a short one, and at a run's end."""
    generator = np.random.default_rng(classes)
    long = (generator.standard_normal((1, classes, 2100)) * 5).astype(np.float32)
    labels = generator.integers(0, classes, (1, 2100))
    want = losses(long, labels, 1)
    for size in (7, 20, 700):
        short = np.ascontiguousarray(np.moveaxis(long.reshape(classes, -1, size), 0, 1))
        got = losses(short, labels.reshape(-1, size), 1)
        assert got.tobytes() == want.tobytes(), size


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("classes", [1, 2, 4, 5, 8, 9, 12, 13, 16])
def test_bits_of_few_classes_do_not_depend_on_other_rows(classes: int, dtype: dtypes.DType) -> None:
    """Rows that are transposed 16 at a time, wherever a tile begins or ends, and rows apart."""
    generator = np.random.default_rng(classes)
    logits = stored(generator.standard_normal((2500, classes)) * 5, dtype)
    labels = generator.integers(0, classes, 2500)
    labels[::9] = -100
    want = losses(logits, labels, 1)
    for start, stop in ((7, 8), (3, 20), (5, 38), (16, 48), (100, 1200), (1, 2500)):
        got = losses(logits[start:stop], labels[start:stop], 1)
        assert got.tobytes() == want[start:stop].tobytes(), (start, stop)
    apart = np.zeros((2500, classes + 3), logits.dtype)[:, :classes]
    apart[...] = logits
    assert losses(apart, labels, 1).tobytes() == want.tobytes()


def test_classes_that_are_ruled_out_first() -> None:
    """The first groups of classes are -inf, or as good as that."""
    generator = np.random.default_rng(3)
    for number in (-np.inf, -3e38, -1e9):
        logits = generator.standard_normal((1, 19, 50)).astype(np.float32)
        logits[:, :14] = number
        labels = generator.integers(14, 19, (1, 50))
        want = oracle.cross_entropy(logits, labels, class_axis=1, reduction="none")
        oracle.assert_close(losses(logits, labels, 1), want, 4.0)


def test_an_exact_hit_is_minus_zero() -> None:
    for classes in (3, 40):
        logits = np.zeros((20, classes), np.float32)
        logits[:, 1] = 200.0
        got = losses(logits, np.ones(20, np.int64), 1)
        assert (got == 0.0).all()
        assert np.signbit(got).all()


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("name", ["transposed", "rows with a tail", "planes"])
def test_labels_of_any_width(name: str, kind: str) -> None:
    numbers, labels, axis = example(name)
    labels = np.abs(labels) % 10 % numbers.shape[axis]
    want = losses(numbers, labels, axis)
    narrow = labels.astype(kind)
    assert losses(numbers, narrow, axis).tobytes() == want.tobytes()
    narrow.reshape(-1)[37] = numbers.shape[axis]
    with pytest.raises(InvalidInput) as caught:
        losses(numbers, narrow, axis)
    assert caught.value.position == tuple(map(int, np.unravel_index(37, labels.shape)))
    ignoring = {"ignore_index": int(narrow.reshape(-1)[37])}
    assert losses(numbers, narrow, axis, **ignoring).reshape(-1)[37] == 0.0
