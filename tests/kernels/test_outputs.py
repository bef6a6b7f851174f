"""Each output beside the loss: its value, its edges, and that its neighbours do not matter."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import kernels
from kernels import dtypes
from kernels.plan import LIKELIEST, TABLE, Kind, outputs_of
from tests import oracle, zoo
from tests.oracle import Array

Layout = Callable[[Array], Array]
ALL = zoo.outputs()
EACH = zoo.each_alone()
SHAPES = [((37, 10), 1), ((5, 300), 1), ((2, 9001), 1), ((129,), 0), ((3, 19, 7, 11), 1)]
SHAPES += [((300, 21), 0), ((2, 3, 33, 6), 2), ((2, 3, 6, 33), 3), ((40, 1), 1)]


def hold(example: zoo.Example, layout: Layout = np.asarray) -> None:
    """All that says something of the logits alone, or of them and the labels, to the oracle."""
    logits, labels, options = example.lying(layout)
    names = example.outputs()
    got = kernels.cross_entropy(logits, labels, outputs=names, **options)
    assert list(got) == names
    axis = options["class_axis"]
    scaling = {name: options[name] for name in ("temperature", "softcap") if name in options}
    want = {
        "log_sum_exp": oracle.log_sum_exp(example.logits, axis, **scaling),
        "entropy": oracle.entropy(example.logits, axis, **scaling),
        "prediction": oracle.prediction(example.logits, axis),
        "log_probs": oracle.log_softmax(example.logits, axis, **scaling),
    }
    if "rank" in names:
        want["rank"] = oracle.rank(example.logits, example.labels, class_axis=axis)
        kept = (example.labels != -100) & ~np.isnan(want["log_sum_exp"])
        hit = got["prediction"] == example.labels
        assert ((got["rank"] == 0) == hit)[kept].all()
    for name, array in want.items():
        assert got[name].dtype.kind == ("i" if name in ("rank", "prediction") else "f")
        # An entropy moves by log(p) for each unit that a logit moves.
        spread = 6.0 if name == "entropy" and scaling else 2.0
        oracle.assert_close(got[name], array, example.softened() * spread)


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize("options", ["plain", "temperature", "softcap", "z_loss", "all"])
def test_values(options: str, soft: bool, dtype: dtypes.DType) -> None:
    for shape, axis in SHAPES:
        hold(zoo.example(shape, axis, dtype, options, soft=soft))


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
def test_values_in_every_layout(layout: Layout, soft: bool, dtype: dtypes.DType) -> None:
    for shape, axis in [((9, 33), 1), ((5, 33, 6), 0), ((5, 33, 6), 1), ((2, 3, 4, 19), 3)]:
        hold(zoo.example(shape, axis, dtype, "plain", soft=soft), layout)
        hold(zoo.example(shape, axis, dtype, "all", soft=soft), layout)


@pytest.mark.parametrize("name", [name for name in zoo.ROWS if name != "around_3e38"])
def test_odd_rows(name: str, dtype: dtypes.DType) -> None:
    logits = zoo.cast(zoo.ROWS[name], dtype)
    labels = np.random.default_rng(6).integers(0, logits.shape[1], len(logits))
    labels[-1] = -100
    with np.errstate(invalid="ignore"):
        hold(zoo.Example(logits, labels, {"class_axis": 1}))
        hold(zoo.Example(np.array(logits.T, order="C"), labels, {"class_axis": 0}))


NAN, INF = np.nan, np.inf
# Three logits; what their log-sum-exp, entropy and prediction are, and the rank of each class.
EDGES: dict[str, tuple[list[float], float, float, int, list[int]]] = {
    "equal": ([1, 1, 1], 1 + np.log(3), np.log(3), 0, [0, 1, 2]),
    "signed zeros": ([-0.0, 0.0, -0.0], np.log(3), np.log(3), 0, [0, 1, 2]),
    "tie behind": ([0, 2, 2], np.log(1 + 2 * np.exp(2)), 0.8853816, 1, [2, 0, 1]),
    "NaN first": ([NAN, 1, 2], NAN, NAN, 0, [-1, -1, -1]),
    "NaN last": ([1, 2, NAN], NAN, NAN, 2, [-1, -1, -1]),
    "NaN behind +inf": ([INF, 0, NAN], NAN, NAN, 2, [-1, -1, -1]),
    "two NaNs": ([1, NAN, NAN], NAN, NAN, 1, [-1, -1, -1]),
    "+inf": ([0, INF, 1], INF, NAN, 1, [2, 0, 1]),
    "two +inf": ([INF, 0, INF], INF, NAN, 0, [0, 2, 1]),
    "-inf": ([-INF, 0, -INF], 0, 0, 1, [1, 0, 2]),
    "all -inf": ([-INF, -INF, -INF], -INF, NAN, 0, [0, 1, 2]),
    "3e38": ([3e38, -3e38, 3e38], 3e38, np.log(2), 0, [0, 2, 1]),
    "denormal": ([1e-40, -1e-40, 2e-40], np.log(3), np.log(3), 2, [1, 2, 0]),
}


@pytest.mark.parametrize("pad", [0, 60, 400], ids=["3 classes", "63", "403"])
@pytest.mark.parametrize("axis", [1, 0], ids=["rows", "planes"])
@pytest.mark.parametrize("name", EDGES)
def test_edges(name: str, axis: int, pad: int) -> None:
    """Alone, and with 60 or 400 classes behind that cannot happen."""
    row, lse, entropy, prediction, ranks = EDGES[name]
    for kind in (np.float32, np.float64):
        logits = np.repeat(np.array([[*row, *[-np.inf] * pad]], kind), 3, axis=0)
        lying = logits if axis else np.array(logits.T, order="C")
        names = ["log_sum_exp", "entropy", "rank", "prediction"]
        got = kernels.cross_entropy(
            lying, np.arange(3), class_axis=axis, reduction="none", outputs=names
        )
        np.testing.assert_allclose(got["log_sum_exp"], [lse] * 3, rtol=1e-6)
        np.testing.assert_allclose(got["entropy"], [entropy] * 3, rtol=2e-5)
        assert got["prediction"].tolist() == [prediction] * 3
        assert got["rank"].tolist() == ranks


@pytest.mark.parametrize("classes", [2, 5, 33, 300, 5000])
@pytest.mark.parametrize("axis", [1, 0], ids=["rows", "planes"])
def test_ties(classes: int, axis: int, dtype: dtypes.DType) -> None:
    """Few distinct values, so that most ranks are decided by the order of the classes."""
    rng = np.random.default_rng(classes)
    shape = (40, classes)[:: 2 * axis - 1]
    example = zoo.Example(
        zoo.cast(rng.integers(0, 3, shape), dtype),
        rng.integers(0, classes, 40),
        {"class_axis": axis},
    )
    hold(example)


def test_ignored_positions_have_all_but_a_rank(dtype: dtypes.DType) -> None:
    """Outputs that need no label are given; those that need one are 0, or -1."""
    for axis in (1, 0):
        example = zoo.example((40, 21)[:: 2 * axis - 1], axis, dtype, "all")
        logits, labels, options = example
        names, ignored = example.outputs(), labels == -100
        got = kernels.cross_entropy(logits, labels, outputs=names, **options)
        full = kernels.cross_entropy(logits, np.where(ignored, 3, labels), outputs=names, **options)
        assert (got["rank"][ignored] == -1).all()
        assert not got["per_element"][ignored].any()
        assert not np.moveaxis(got["gradient"], axis, -1)[ignored].any()
        for name in ("prediction", "entropy", "log_sum_exp", "log_probs"):
            np.testing.assert_allclose(got[name], full[name], rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize(
    ("dtype", "alone"),
    [(dtype, name) for dtype in dtypes.FLOATS for name in zoo.compiled(ALL, dtype)],
    ids=lambda value: getattr(value, "name", value),
)
def test_alone_as_in_company(dtype: dtypes.DType, alone: str) -> None:
    """An output's bits do not depend on which others are asked for."""
    for shape, axis in SHAPES:
        example = zoo.example(shape, axis, dtype, "all")
        logits, labels, options = example
        if alone in LIKELIEST and dtype not in zoo.WITH_BOTH:
            options.pop("softcap", None)
        together = kernels.cross_entropy(logits, labels, outputs=example.outputs(), **options)
        got = kernels.cross_entropy(logits, labels, outputs=[alone], **options)
        assert list(got) == [alone]
        assert got[alone].tobytes() == together[alone].tobytes()


def test_log_probs_are_log_softmax(dtype: dtypes.DType) -> None:
    for shape, axis in SHAPES:
        logits, labels, _ = zoo.example(shape, axis, dtype, "plain")
        got = kernels.cross_entropy(logits, labels, class_axis=axis, outputs=["log_probs"])
        alone = kernels.log_softmax(logits, class_axis=axis)
        oracle.assert_close(got["log_probs"], alone.astype(np.longdouble))


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0), (2, 3, 4, 0)], ids=str)
def test_of_nothing(shape: tuple[int, ...], layout: Layout, dtype: dtypes.DType) -> None:
    logits = layout(zoo.cast(np.zeros(shape), dtype))
    labels = np.zeros((shape[0], *shape[2:]), np.int64)
    names = zoo.compiled(ALL, dtype)
    got = kernels.cross_entropy(logits, labels, outputs=names)
    shapes = {Kind.SCALAR: (), Kind.CLASS: shape, Kind.SEQUENCE: labels.shape[:1]}
    for name in names:
        assert got[name].shape == shapes.get(TABLE[name].kind, labels.shape)


def test_rank_is_of_a_class() -> None:
    logits = np.ones((2, 3), np.float32)
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(logits, logits, outputs=["rank"])
    assert caught.value.field == "outputs"


@pytest.mark.parametrize("name", sorted({*ALL} - {*outputs_of("nll_loss")}))
def test_nll_loss_has_losses_alone(name: str) -> None:
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.nll_loss(np.ones((2, 3), np.float32), np.zeros(2, int), outputs=[name])
    assert caught.value.field == "outputs"


def neighbours(classes: int, dtype: dtypes.DType) -> tuple[Array, Array]:
    """Rows of every kind, of which each would spoil its neighbours if it could, and labels."""
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, 4, (75, classes))
    logits[1::9] = np.nan
    logits[2::9, classes // 2] = np.inf
    logits[3::9] = -np.inf
    logits[4::9, : classes // 2] = -1e9
    logits[5::9] *= 1e4
    labels = rng.integers(0, classes, 75)
    labels[rng.random(75) < 0.3] = -100
    return zoo.cast(logits, dtype), labels


# Orders in which the rows come; at least two of them, or strides are no longer what they were.
ORDERS = [np.arange(75)[::-1], np.random.default_rng(1).permutation(75), np.arange(70, 75)]
ORDERS += [np.arange(8, 41), np.arange(33, 35), np.array([1, 0, 1, 0, 3, 3, 3]), np.repeat(6, 40)]


@pytest.mark.parametrize("classes", [3, 19, 300])
def test_a_position_knows_nothing_of_its_neighbours(
    classes: int, layout: Layout, dtype: dtypes.DType
) -> None:
    """Crops, permutations and batches of any size, of rows and of planes."""
    rows, labels = neighbours(classes, dtype)
    weights = np.random.default_rng(2).random(75)
    names, each = zoo.compiled(ALL, dtype), zoo.compiled(EACH, dtype)
    for options in ({}, {"label_smoothing": 0.1, "z_loss": 0.01}):

        def answers(order: Array, axis: int, options: dict[str, Any] = options) -> list[Array]:
            logits = rows[order] if axis else np.ascontiguousarray(rows[order].T)
            got = kernels.cross_entropy(
                layout(logits), labels[order], class_axis=axis, reduction="sum", outputs=names,
                sample_weight=weights[order], **options,
            )  # fmt: skip
            turn = ("log_probs", "gradient") if axis == 0 else ()
            return [got[name].T if name in turn else got[name] for name in each]

        for axis in (1, 0):
            whole = answers(np.arange(75), axis)
            for order in ORDERS:
                for name, array, part in zip(each, whole, answers(order, axis), strict=True):
                    assert part.tobytes() == array[order].tobytes(), (name, axis, order)


def test_a_pixel_knows_nothing_of_its_image(dtype: dtypes.DType) -> None:
    """Crops that are views, of one run of pixels: the rest is there, and not looked at."""
    rng = np.random.default_rng(3)
    logits = zoo.cast(rng.normal(0, 4, (2, 19, 12, 37)), dtype)
    labels = rng.integers(0, 19, (2, 12, 37))
    names = zoo.compiled(ALL, dtype)
    whole = kernels.cross_entropy(logits, labels, reduction="sum", outputs=names)
    for rows, columns in ((slice(3, 9), slice(None)), (slice(4, 5), slice(5, 33))):
        crop = (slice(None), slice(None), rows, columns)
        got = kernels.cross_entropy(
            logits[crop], labels[:, rows, columns], reduction="sum", outputs=names
        )
        for name in zoo.compiled(EACH, dtype):
            cut = crop if whole[name].ndim == 4 else (slice(None), rows, columns)
            assert got[name].tobytes() == whole[name][cut].tobytes(), name


MANY = 3  # threads, on however few cores


def digest() -> str:
    """Of all outputs of problems that are split over threads in every way."""
    found = []
    shapes = [((701, 200), 1), ((20_011, 7), 1), ((3, 19, 2003), 1), ((4001, 40), 0)]
    shapes += [((2, 140_001), 1), ((5, 66_000), 1)]
    for shape, axis in shapes:
        for dtype in dtypes.FLOATS:
            for soft in (False, True):
                example = zoo.example(shape, axis, dtype, "all", soft=soft)
                logits, labels, options = example
                names = example.outputs()
                got = kernels.cross_entropy(logits, labels, outputs=names, **options)
                found += [got[name].tobytes() for name in names]
            logits, labels, options = zoo.example(shape, axis, dtype, "plain")
            found.append(kernels.cross_entropy(logits, labels, **options).tobytes())
    return hashlib.sha256(b"".join(found)).hexdigest()


def print_for_every_thread_count() -> None:
    """Program of the subprocess below."""
    for threads in range(1, MANY + 1):
        numba.set_num_threads(threads)
        print(digest())


def test_any_number_of_threads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import *; print_for_every_thread_count()"],
        cwd=Path(__file__).parents[2], env=os.environ | {"NUMBA_NUM_THREADS": str(MANY)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [digest()] * MANY
