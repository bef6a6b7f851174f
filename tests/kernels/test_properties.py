"""Whatever the shape, dtype, options and strides: the oracle's answer; and what must not matter."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels import dtypes
from tests import oracle, zoo
from tests.oracle import Array

LAYOUT_NAMES = st.sampled_from(sorted(zoo.LAYOUTS))
# Steps of a quarter: the sum that a mean divides by is exact in any dtype.
WEIGHTS = np.array([0, 0.25, 0.5, 1, 2])


class Problem(NamedTuple):
    """Arguments of ``cross_entropy``; and how large an error of 1 in a log-probability can get."""

    logits: Array
    labels: Array
    options: dict[str, Any]
    scale: float
    layouts: tuple[str, ...]

    def lying(self) -> tuple[Array, Array, dict[str, Any]]:
        """The arguments, each in its layout."""
        options = dict(self.options)
        logits, labels, weight = (zoo.LAYOUTS[name] for name in self.layouts)
        if "weight" in options:
            options["weight"] = weight(options["weight"])
        return logits(self.logits), labels(self.labels), options


# The longest axis by rank: what is there to go wrong is there, and the oracle is slow.
LONGEST = {1: 3000, 2: 70, 3: 40, 4: 12, 5: 8}


@st.composite
def shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], int | None]:
    """Rank 1 to 5 and a class axis, or ``None`` for its default; at least one class. Left alone,
    Hypothesis would draw an axis of length 0 in a third of the shapes, which test one thing.
    """
    rank = draw(st.sampled_from([2, 3, 4, 5, 1]))
    longest = LONGEST[rank]
    sizes = st.integers(1, longest) | st.integers(longest // 3, longest)
    shape = draw(st.lists(sizes, min_size=rank, max_size=rank))
    axis = draw(st.none() | st.integers(-rank, rank - 1))
    emptied = draw(st.integers(0, 9 * rank))
    if emptied < rank and emptied != oracle.class_dimension(rank, axis):
        shape[emptied] = 0
    return tuple(shape), axis


@st.composite
def noises(draw: st.DrawFn, shape: tuple[int, ...], dtype: dtypes.DType) -> Array:
    """Seeded noise of some scale and level, sometimes masked, sometimes with a NaN or +inf."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1.0, 0.01, 30.0, 300.0]))
    offset = draw(st.sampled_from([0.0, 0.0, 50.0, -1e4, 1e4]))
    values = rng.normal(offset, scale, shape)
    values[rng.random(shape) < draw(st.sampled_from([0, 0, 0.2, 0.9]))] = -np.inf
    values[rng.random(shape) < draw(st.sampled_from([0, 0, 0, 0.01]))] = np.nan
    values[rng.random(shape) < draw(st.sampled_from([0, 0, 0, 0.01]))] = np.inf
    return zoo.cast(values, dtype)


@st.composite
def problems(draw: st.DrawFn, soft: bool | None = None) -> Problem:
    """Logits, labels of either kind, and every option."""
    shape, axis = draw(shapes())
    dtype = draw(st.sampled_from(dtypes.FLOATS))
    logits = draw(noises(shape, dtype))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    at = oracle.class_dimension(len(shape), axis)
    classes = shape[at]
    options: dict[str, Any] = {
        "reduction": draw(st.sampled_from(["none", "mean", "sum"])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        "class_axis": axis,
    }
    if draw(st.booleans()):
        options["empty"] = draw(st.sampled_from(["nan", "zero"]))
    else:  # whether a total weight of 0 is "nothing" as well is not said: then NaN, the default
        options["weight"] = zoo.cast(rng.choice(WEIGHTS, classes), dtype)
    if draw(st.booleans()) if soft is None else soft:
        sparse = rng.random(shape) < draw(st.sampled_from([1, 0.3]))
        shares = np.where(sparse.any(at, keepdims=True), rng.random(shape) * sparse, 1.0)
        labels = zoo.cast(shares / shares.sum(at, keepdims=True), dtype)
        scale = 2.0 * classes
    else:
        integer = draw(st.sampled_from(dtypes.INTEGERS)).numpy
        held = np.iinfo(integer)
        ignored = draw(st.sampled_from([-100, 0, classes - 1, classes, 120, -1]))
        labels = rng.integers(0, min(classes, held.max), np.delete(shape, at))
        if held.min <= ignored <= held.max:
            ignore = rng.random(labels.shape) < draw(st.sampled_from([0, 0.3, 1]))
            labels = np.where(ignore, ignored, labels)
        labels = np.asarray(labels).astype(integer)
        options["ignore_index"] = ignored
        scale = 2.0
    if options["reduction"] == "sum":
        scale *= max(1, math.prod(shape) // classes)
    layouts = draw(st.tuples(LAYOUT_NAMES, LAYOUT_NAMES, LAYOUT_NAMES))
    return Problem(logits, labels, options, scale, layouts)


@settings(max_examples=400)
@given(problem=problems())
def test_cross_entropy_is_the_oracles(problem: Problem) -> None:
    logits, labels, options = problem.lying()
    want = oracle.cross_entropy(problem.logits, problem.labels, **problem.options)
    oracle.assert_close(kernels.cross_entropy(logits, labels, **options), want, problem.scale)


@settings(max_examples=200)
@given(problem=problems(soft=False))
def test_nll_loss_is_the_oracles(problem: Problem) -> None:
    """Of any numbers at all: the logits are taken for log-probabilities, NaN and +inf included."""
    logits, labels, options = problem.lying()
    del options["label_smoothing"]
    plain = {name: problem.options[name] for name in options}
    want = oracle.nll_loss(problem.logits, problem.labels, **plain)
    size = problem.scale
    if options["reduction"] != "none":  # the terms may be of either sign
        magnitudes = np.abs(oracle.widen(problem.logits))
        size *= float(magnitudes[np.isfinite(magnitudes)].max(initial=1))
    oracle.assert_close(kernels.nll_loss(logits, labels, **options), want, size)


@settings(max_examples=200)
@given(data=st.data())
def test_softmax_and_its_log_are_the_oracles(data: st.DataObject) -> None:
    shape, axis = data.draw(shapes())
    dtype = data.draw(st.sampled_from(dtypes.FLOATS))
    logits = data.draw(noises(shape, dtype))
    lying = zoo.LAYOUTS[data.draw(LAYOUT_NAMES)](logits)
    truth = oracle.log_softmax(logits, axis)
    got = kernels.log_softmax(lying, class_axis=axis)
    assert got.dtype == dtype.result
    oracle.assert_close(got, truth)
    with np.errstate(all="ignore"):
        probabilities = np.exp(truth)
    got = kernels.softmax(lying, class_axis=axis)
    assert got.dtype == dtype.result
    oracle.assert_close(got, probabilities)
    seen = probabilities > 1e-30  # small ones must be right too, not merely small
    relative = 10 * oracle.TOLERANCE[got.dtype]
    np.testing.assert_allclose(got[seen], probabilities[seen].astype(got.dtype), rtol=relative)


GRID = [dtypes.FLOAT32, dtypes.FLOAT64]


@pytest.mark.parametrize("exact", GRID, ids=lambda exact: exact.name)
@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), shift=st.integers(-4096, 4096))
def test_shifting_all_logits_changes_nothing(exact: dtypes.DType, seed: int, shift: int) -> None:
    """Logits in steps of 1/8, so that the shift itself rounds nothing."""
    rng = np.random.default_rng(seed)
    logits = (rng.integers(-128, 128, (6, 37)) / 8).astype(exact.numpy)
    labels = rng.integers(0, 37, 6)
    for smoothing in (0.0, 0.2):
        before = kernels.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        after = kernels.cross_entropy(
            logits + exact.numpy.type(shift), labels, label_smoothing=smoothing, reduction="none"
        )
        oracle.assert_close(after, before.astype(np.longdouble))


@settings(max_examples=50)
@given(problem=problems(soft=False), seed=st.integers(0, 2**32 - 1))
def test_renaming_the_classes_changes_nothing(problem: Problem, seed: int) -> None:
    logits, labels, options = problem.logits, problem.labels, dict(problem.options)
    axis = oracle.class_dimension(logits.ndim, options["class_axis"])
    order = np.random.default_rng(seed).permutation(logits.shape[axis])
    kept = labels != options["ignore_index"]
    renamed = np.where(kept, np.argsort(order)[np.where(kept, labels, 0)], -100)
    before = kernels.cross_entropy(logits, labels, **options)
    options["ignore_index"] = -100
    if "weight" in options:
        options["weight"] = options["weight"][order]
    after = kernels.cross_entropy(np.take(logits, order, axis), renamed, **options)
    oracle.assert_close(after, before.astype(np.longdouble), 2 * problem.scale)


@settings(max_examples=50)
@given(problem=problems(soft=False))
def test_the_routes_agree(problem: Problem) -> None:
    """``cross_entropy`` is ``nll_loss`` of ``log_softmax``, and that of one-hot labels."""
    logits, labels, options = problem.logits, problem.labels, dict(problem.options)
    ignored, axis = options["ignore_index"], options["class_axis"]
    del options["label_smoothing"]
    direct = kernels.cross_entropy(logits, labels, **options)
    log_probs = kernels.log_softmax(logits, class_axis=axis)
    wide = dict(options)
    if "weight" in options:  # weights have the type of what they weigh
        wide["weight"] = oracle.widen(options["weight"]).astype(log_probs.dtype)
    likelihood = kernels.nll_loss(log_probs, labels, **wide)
    finite = np.isfinite(direct)
    np.testing.assert_array_equal(np.isfinite(likelihood), finite)
    oracle.assert_close(likelihood[finite], direct[finite].astype(np.longdouble), problem.scale)

    if (labels == ignored).any() or options["reduction"] == "mean":
        return  # means of probabilities are not divided by weights, and nothing there is ignored
    del options["ignore_index"]
    options.pop("empty", None)
    at = oracle.class_dimension(logits.ndim, axis)
    one_hot = np.moveaxis(np.eye(logits.shape[at])[labels.astype(np.int64)], -1, at)
    dtype = next(dtype for dtype in dtypes.FLOATS if dtype.numpy == logits.dtype)
    soft = kernels.cross_entropy(logits, zoo.cast(one_hot, dtype), **options)
    np.testing.assert_array_equal(np.isfinite(soft), finite)
    oracle.assert_close(soft[finite], direct[finite].astype(np.longdouble), problem.scale)


@settings(max_examples=50)
@given(problem=problems())
def test_options_that_say_nothing_change_no_bit(problem: Problem) -> None:
    """A weight of ones; the class axis from the other end; an ignore index that no label has."""
    logits, labels, options = problem.logits, problem.labels, dict(problem.options)
    options.pop("weight", None)
    before = kernels.cross_entropy(logits, labels, **options)
    axis = oracle.class_dimension(logits.ndim, options["class_axis"])
    same_axis = kernels.cross_entropy(logits, labels, **(options | {"class_axis": axis}))
    from_the_end = kernels.cross_entropy(
        logits, labels, **(options | {"class_axis": axis - logits.ndim})
    )
    assert before.tobytes() == same_axis.tobytes() == from_the_end.tobytes()
    dtype = next(dtype for dtype in dtypes.FLOATS if dtype.numpy == logits.dtype)
    ones = zoo.cast(np.ones(logits.shape[axis]), dtype)
    weighted = kernels.cross_entropy(logits, labels, weight=ones, **options)
    oracle.assert_close(weighted, before.astype(np.longdouble), problem.scale)


@settings(max_examples=50)
@given(problem=problems(soft=False))
def test_ignoring_rows_is_leaving_them_out(problem: Problem) -> None:
    if problem.logits.ndim != 2 or problem.options["class_axis"] not in (None, 1, -1):
        return
    kept = problem.labels != problem.options["ignore_index"]
    whole = kernels.cross_entropy(problem.logits, problem.labels, **problem.options)
    fewer = kernels.cross_entropy(problem.logits[kept], problem.labels[kept], **problem.options)
    if problem.options["reduction"] == "none":
        assert not whole[~kept].any()
        whole = whole[kept]
    oracle.assert_close(whole, fewer.astype(np.longdouble), problem.scale)
