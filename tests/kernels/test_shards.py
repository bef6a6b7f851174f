"""Classes spread over machines: any cut gives what the whole gives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import oracle, zoo
from tests.oracle import Array

Layout = Callable[[Array], Array]
CUTS = [[0, 40], [0, 20, 40], [0, 1, 2, 39, 40], list(range(41))]


def merged(
    logits: Array, labels: Array, cuts: list[int], *, axis: int = 1, **options: Any
) -> Array:
    """The losses, from shards of the classes between ``cuts``."""
    shards = []
    for first, stop in pairwise(cuts):
        part = np.take(logits, np.arange(first, stop), axis)
        got = kernels.class_shard(part, labels, first, class_axis=axis, **options)
        assert all(array.shape == labels.shape for array in got)
        shards.append(got)
    losses = kernels.merge_class_shards(shards)
    assert losses.dtype == np.float64
    return losses


@pytest.mark.parametrize("cuts", CUTS, ids=lambda cuts: f"{len(cuts) - 1} shards")
@pytest.mark.parametrize("scaling", [{}, {"temperature": 0.6, "softcap": 5.0}], ids=str)
def test_any_cut(cuts: list[int], scaling: dict[str, Any], dtype: dtypes.DType) -> None:
    """A log-sum-exp and a logit, of up to 30, are rounded to the results' type on their way."""
    rng = np.random.default_rng(0)
    for shape, axis in (((50, 40), 1), ((40, 50), 0), ((3, 40, 7), 1)):
        logits = zoo.cast(rng.normal(0, 5, shape), dtype)
        labels = rng.integers(0, 40, tuple(np.delete(shape, axis)))
        want = oracle.cross_entropy(logits, labels, class_axis=axis, reduction="none", **scaling)
        losses = merged(logits, labels, cuts, axis=axis, **scaling)
        oracle.assert_close(losses.astype(dtype.result), want, scale=30)


def test_layouts(layout: Layout, dtype: dtypes.DType) -> None:
    rng = np.random.default_rng(1)
    logits, labels = zoo.cast(rng.normal(0, 3, (5, 40, 6)), dtype), rng.integers(0, 40, (5, 6))
    want = oracle.cross_entropy(logits, labels, reduction="none")
    shards = [
        kernels.class_shard(layout(logits[:, first : first + 20]), layout(labels), first)
        for first in (0, 20)
    ]
    oracle.assert_close(kernels.merge_class_shards(shards).astype(dtype.result), want, scale=30)


def test_the_order_of_shards_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(0, 3, (9, 40)), rng.integers(0, 40, 9)
    shards = [kernels.class_shard(logits[:, i : i + 10], labels, i) for i in range(0, 40, 10)]
    want = kernels.merge_class_shards(shards)
    np.testing.assert_allclose(kernels.merge_class_shards(shards[::-1]), want, rtol=1e-14)


def test_what_one_shard_says() -> None:
    logits = np.array([[0.0, 1.0], [2.0, 3.0]])
    log_sum_exp, label_logit = kernels.class_shard(logits, np.array([6, 4]), 5)
    np.testing.assert_allclose(log_sum_exp, oracle.log_sum_exp(logits).astype(float), rtol=1e-15)
    assert label_logit[0] == pytest.approx(1.0, rel=1e-15)
    assert label_logit[1] == -np.inf  # class 4 is another shard's


@pytest.mark.parametrize("cuts", [[0, 4], [0, 2, 4], [0, 1, 2, 3, 4]], ids=len)
@pytest.mark.parametrize("ignored", [-100, -1, 4, 2], ids=str)
def test_ignored_labels_cost_nothing(ignored: int, cuts: list[int]) -> None:
    """Loss 0 for any logits; ``ignore_index`` may be a class or not."""
    logits, labels = np.zeros((5, 4), np.float32), np.array([3, ignored, 1, ignored, ignored])
    logits[3], logits[4, 1] = np.nan, np.inf
    losses = merged(logits, labels, cuts, ignore_index=ignored)
    assert losses[[1, 3, 4]].tolist() == [0, 0, 0]
    np.testing.assert_allclose(losses[[0, 2]], np.log(4), rtol=1e-6)


@pytest.mark.parametrize("value", [-1, -101, 4, 5, 2**31, 2**63 + 1, 2**64 - 100], ids=str)
def test_a_label_of_no_class_is_named(value: int) -> None:
    """A negative one by the shard, which knows it is in none; one too large by what merges them."""
    integer = np.uint64 if value >= 2**63 else np.int64
    logits, labels = np.zeros((2, 4, 3), np.float32), np.zeros((2, 3), integer)
    labels[1, 2] = value
    with pytest.raises(kernels.InvalidInput, match=r"labels\[1, 2\] is") as caught:
        merged(logits, labels, [0, 2, 4])
    assert (caught.value.field, caught.value.position) == ("labels", (1, 2))
    with pytest.raises(kernels.InvalidInput, match="labels is"):
        merged(np.zeros(4), np.array(value, integer), [0, 2, 4], axis=0)


def test_shards_that_do_not_fit_are_named() -> None:
    logits, labels = np.zeros((3, 4)), np.array([0, 2, 3])
    one, other = (kernels.class_shard(logits[:, i : i + 2], labels, i) for i in (0, 2))
    for shards, position in (([one], (1,)), ([one, other, other], (1,)), ([one, one], (0,))):
        with pytest.raises(kernels.InvalidInput) as caught:
            kernels.merge_class_shards(shards)
        assert caught.value.position == position
    unlike = kernels.class_shard(logits[:, 2:], labels, 2, ignore_index=2)
    with pytest.raises(kernels.InvalidInput, match="ignored in all"):
        kernels.merge_class_shards([one, unlike])
    shorter = kernels.class_shard(logits[1:, 2:], labels[1:], 2)
    for wrong in ([], [one, shorter]):
        with pytest.raises(kernels.InvalidInput) as caught:
            kernels.merge_class_shards(wrong)
        assert caught.value.field == "shards"


@pytest.mark.parametrize(
    ("field", "logits", "options"),
    [
        ("logits", np.zeros((2, 0)), {}),
        ("first_class", np.zeros((2, 3)), {"first_class": -1}),
        ("first_class", np.zeros((2, 3)), {"first_class": 1.5}),
        ("ignore_index", np.zeros((2, 3)), {"ignore_index": 0.5}),
    ],
)
def test_what_is_no_shard_is_named(field: str, logits: Array, options: dict[str, Any]) -> None:
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.class_shard(logits, np.zeros(2, int), **({"first_class": 0} | options))
    assert caught.value.field == field


def test_a_shard_may_be_masked_whole(dtype: dtypes.DType) -> None:
    """Then it adds nothing; a label in it costs everything, as it does in one piece."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (6, 40))
    logits[:3, :20] = -np.inf
    logits[3, 10:] = -np.inf
    labels = np.array([30, 5, 39, 3, 25, 0])
    logits = zoo.cast(logits, dtype)
    want = oracle.cross_entropy(logits, labels, reduction="none")
    assert np.isfinite(want).tolist() == [True, False, True, True, True, True]
    for cuts in CUTS:
        oracle.assert_close(merged(logits, labels, cuts).astype(dtype.result), want, scale=30)


def test_a_nan_is_not_lost() -> None:
    logits = np.zeros((3, 40))
    logits[0, 0], logits[1, 25], logits[2, 25] = np.nan, np.nan, np.inf
    assert np.isnan(merged(logits, np.array([3, 3, 3]), [0, 20, 40])).all()


@pytest.mark.parametrize("integer", dtypes.INTEGERS, ids=lambda integer: integer.name)
def test_labels_of_every_integer_width(integer: dtypes.DType) -> None:
    """The first class need not fit in the labels' type."""
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 3, (8, 400))
    labels = rng.integers(0, 120, 8)
    want = oracle.cross_entropy(logits, labels, reduction="none")
    got = merged(logits, labels.astype(integer.numpy), [0, 100, 130, 300, 400])
    oracle.assert_close(got, want, scale=30)


WRONG: dict[str, tuple[Any, Any]] = {
    "labels of another shape": (np.zeros((2, 3)), np.zeros(3, int)),
    "labels that are no integers": (np.zeros((2, 3)), np.zeros(2)),
    "labels of truth values": (np.zeros((2, 3)), np.zeros(2, bool)),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_labels(name: str) -> None:
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.class_shard(*WRONG[name], 0)
    assert caught.value.field == "labels"
