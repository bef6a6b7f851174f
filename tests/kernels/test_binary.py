"""Binary cross-entropy: PyTorch's numbers, an oracle, edges, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels import dtypes, steps
from tests import oracle, zoo
from tests.oracle import Array

FILE = Path(__file__).parents[1] / "data" / "binary_and_focal_facts.jsonl"
FACTS = [json.loads(line) for line in FILE.read_text().splitlines()[1:]]
OUTPUTS = ("loss", "per_element", "gradient", "count", "weight_sum", "loss_sum")


def hold(logits: Array, labels: Array, **options: Any) -> None:
    """All outputs, to the oracle."""
    got = kernels.binary_cross_entropy(logits, labels, outputs=OUTPUTS, **options)
    want = oracle.binary_cross_entropy(logits, labels, **options)
    assert got["per_element"].shape == got["gradient"].shape == logits.shape
    assert got["count"] == want.pop("count")
    terms = _terms(logits, labels)
    for name, array in want.items():
        array = np.asarray(array)
        # A sum of float32 losses is float64, and no more precise than these.
        found = got[name].astype(got["per_element"].dtype)
        size = np.maximum(np.abs(array.astype(float)), terms.get(name, 0.0))
        oracle.assert_close(found, array, np.maximum(1.0, size))


def _terms(logits: Array, labels: Array) -> dict[str, Any]:
    """Sizes of the terms of which losses of probabilities are differences, by output.

    Probabilities are rounded to the logits' type, so ``(1 - label) * logit`` is off by as much of
    the logit, not of the loss. The weights here multiply by less than 2.
    """
    if labels.dtype.kind in "iub":
        return {}
    wide = np.abs(oracle.widen(logits)).astype(float)
    size = 2.0 * np.where(np.isfinite(wide), wide, 0.0)
    return {"per_element": size, "loss": size.max(initial=0.0), "loss_sum": size.sum()}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("fact", FACTS, ids=[fact["case"] for fact in FACTS])
def test_pytorch_has_these_numbers(fact: dict[str, Any], reduction: str) -> None:
    kind = np.dtype(fact["dtype"])
    names = ("weight", "pos_weight")
    options: dict[str, Any] = {name: np.array(fact[name], kind) for name in names if name in fact}
    labels = np.array(fact["labels"])
    if labels.dtype.kind == "f":
        labels = labels.astype(kind)
    function: Any = kernels.binary_cross_entropy
    if fact["case"].startswith("focal"):
        function, options["focal"] = kernels.cross_entropy, fact["gamma"]
    got = function(
        np.array(fact["logits"], kind), labels, reduction=reduction,
        outputs=["loss", "gradient"], **options,
    )  # fmt: skip
    rtol = 1e-6 if kind == np.float32 else 1e-12
    for name, array in got.items():
        want = np.array(fact[reduction][name], np.float64)
        assert array.dtype == kind
        np.testing.assert_allclose(array, want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("shape", [(), (1,), (700,), (9, 33), (2, 3, 5, 7), (0, 4)])
@pytest.mark.parametrize("labels", ["int64", "uint8", "same", "float32"])
def test_values(labels: str, shape: tuple[int, ...], dtype: dtypes.DType) -> None:
    rng = np.random.default_rng(len(shape))
    logits = zoo.cast(rng.normal(0, 5, shape), dtype)
    hard = rng.integers(0, 2, shape)
    given = {"same": zoo.cast(rng.random(shape), dtype), "float32": rng.random(shape, np.float32)}
    target = np.asarray(given[labels] if labels in given else hard.astype(labels))
    if 0 in shape:
        got = kernels.binary_cross_entropy(logits, target, outputs=OUTPUTS)
        assert np.isnan(got["loss"])
        assert got["count"] == 0
        return
    hold(logits, target)


@pytest.mark.parametrize("soft", [False, True])
def test_weights_of_every_shape_that_broadcasts(soft: bool, dtype: dtypes.DType) -> None:
    rng = np.random.default_rng(1)
    shape = (4, 3, 5, 70)
    logits = zoo.cast(rng.normal(0, 3, shape), dtype)
    labels: Array = rng.random(shape, np.float32) if soft else rng.integers(0, 2, shape)
    sizes = [(70,), (3, 1, 1), (4, 1, 1, 1), (4, 1, 5, 1), (1, 3, 1, 70), shape, (1,), ()]
    for index, size in enumerate(sizes):
        other = sizes[-1 - index]
        hold(
            logits,
            labels,
            weight=rng.random(size),
            pos_weight=rng.random(other) * 4,
            sample_weight=rng.choice([0.0, 1.0, 2.0], sizes[(index + 3) % len(sizes)]) + 0.25,
        )


@pytest.mark.parametrize("soft", [False, True])
def test_ignored_labels(soft: bool, dtype: dtypes.DType) -> None:
    rng = np.random.default_rng(2)
    logits = zoo.cast(rng.normal(0, 3, (50, 20)), dtype)
    labels: Array = rng.integers(0, 2, (50, 20))
    labels[rng.random((50, 20)) < 0.3] = -1
    finite = logits.copy()
    for left_out, values in ((finite, np.zeros((50, 20))), (logits, np.full((50, 20), np.nan))):
        left_out[labels == -1] = zoo.cast(values, dtype)[labels == -1]
    given = zoo.cast(labels.astype(float), dtype) if soft else labels
    hold(finite, given, ignore_index=-1)
    got = kernels.binary_cross_entropy(logits, given, ignore_index=-1, outputs=OUTPUTS)
    assert (got["per_element"][labels == -1] == 0).all()
    assert (got["gradient"][labels == -1] == 0).all()
    assert got["count"] == (labels != -1).sum()


def test_limits_where_pytorch_has_nan() -> None:
    logits = np.array([np.inf, -np.inf, np.inf, -np.inf, np.nan])
    got = kernels.binary_cross_entropy(
        logits, np.array([1, 0, 0, 1, 0]), reduction="none", outputs=["loss", "gradient"]
    )
    np.testing.assert_array_equal(got["loss"], [0, 0, np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(got["gradient"], [0, 0, 1, -1, np.nan])


def test_small_losses_keep_their_digits() -> None:
    """log1p, not the logarithm of 1 and something: exp(-80) is 1.8e-35."""
    for kind, rtol in ((np.float32, 5e-7), (np.float64, 1e-14)):
        logits = np.array([-80.0, -20, -5, 5, 20, 80], kind)
        labels = np.array([0, 0, 0, 1, 1, 1])
        got = kernels.binary_cross_entropy(logits, labels, reduction="none")
        np.testing.assert_allclose(got, np.log1p(np.exp(-abs(logits.astype(float)))), rtol=rtol)


def test_gradient_by_finite_differences() -> None:
    rng = np.random.default_rng(3)
    logits, labels, step = rng.normal(0, 3, (4, 5)), rng.random((4, 5)), 1e-6
    options: dict[str, Any] = {"weight": rng.random((4, 1)), "pos_weight": rng.random(5)}
    got = kernels.binary_cross_entropy(logits, labels, outputs=["gradient"], **options)
    for at in np.ndindex(4, 5):
        ends = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[at] += sign * step
            ends.append(kernels.binary_cross_entropy(moved, labels, **options))
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(got["gradient"][at], slope, rtol=1e-5, atol=1e-9)


def test_in_steps_with_the_same_bits() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 3, (40, 5000)).astype(np.float32)
    labels = rng.integers(0, 2, logits.shape).astype(np.int8)
    weight = rng.random(5000)
    whole = kernels.binary_cross_entropy(logits, labels, pos_weight=weight, outputs=OUTPUTS)
    work = steps.binary_cross_entropy(
        logits, labels, pos_weight=weight, outputs=OUTPUTS, step=1 << 16
    )
    assert work.window is not None
    assert work.window < logits.nbytes
    needs, got = [], {}
    try:
        while True:
            needs.append(next(work.steps))
    except StopIteration as stopped:
        got = stopped.value
    assert needs == sorted(needs)
    assert len(needs) > 5
    assert needs[0] < logits.nbytes
    for name in OUTPUTS:
        np.testing.assert_array_equal(got[name], whole[name])


@settings(max_examples=60)
@given(data=st.data())
def test_any_layout_options_and_values(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = tuple(data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    kind = data.draw(st.sampled_from(dtypes.FLOATS))
    layout = zoo.LAYOUTS[data.draw(st.sampled_from(sorted(zoo.LAYOUTS)))]
    logits = layout(zoo.cast(rng.normal(0, data.draw(st.sampled_from([0.1, 3, 60])), shape), kind))
    labels: Array = rng.integers(0, 2, shape)
    if data.draw(st.booleans()):
        labels = zoo.cast(rng.random(shape), data.draw(st.sampled_from(dtypes.FLOATS)))
    options: dict[str, Any] = {}
    for name in ("weight", "pos_weight", "sample_weight"):
        if data.draw(st.booleans()):
            size = [data.draw(st.sampled_from([1, n])) for n in shape]
            options[name] = rng.random(size) + 0.1
    hold(logits, layout(labels), **options)


ROW = np.zeros((2, 2), np.float32)
BAD: list[tuple[Any, dict[str, Any], str, str]] = [
    ([0, 1], {}, "labels", r"shape of the logits, \(2, 2\).*class indices are for cross_entropy"),
    ([[0, 1], [2, 0]], {}, "labels", r"labels\[1, 0\] is 2; it must be 0 or 1, or ignore_index"),
    ([[0, 1], [-1, 0]], {}, "labels", r"labels\[1, 0\] is -1.*ignore_index=-1 leaves"),
    ([[0, 1], [1.5, 0]], {}, "labels", r"labels\[1, 0\] is 1.5; it must be from 0 to 1"),
    ([[0, 1], [np.nan, 0]], {}, "labels", r"labels\[1, 0\] is nan"),
    (np.zeros((2, 2), bool), {}, "labels", "astype"),
    (np.zeros((2, 2), int), {"pos_weight": [1.0] * 3}, "pos_weight", "does not broadcast"),
    (np.zeros((2, 2), int), {"weight": np.ones((1, 1, 2))}, "weight", "does not broadcast"),
    (np.zeros((2, 2), int), {"weight": [1.0, np.nan]}, "weight", "finite"),
    (np.zeros((2, 2), int), {"reduction": "max"}, "reduction", "must be one of"),
    (np.zeros((2, 2), int), {"outputs": ["rank"]}, "outputs", "none of loss, per_element"),
]


@pytest.mark.parametrize(("labels", "options", "field", "text"), BAD)
def test_bad_input_is_named(labels: Any, options: dict[str, Any], field: str, text: str) -> None:
    with pytest.raises(kernels.InvalidInput, match=text) as error:
        kernels.binary_cross_entropy(ROW, np.asarray(labels), **options)
    assert error.value.field == field


def test_unchecked_targets_are_taken_as_they_are() -> None:
    got = kernels.binary_cross_entropy(
        ROW, np.full((2, 2), 2.0, np.float32), check_probabilities=False
    )
    np.testing.assert_allclose(got, np.log(2), rtol=1e-6)
