"""Rows in parts: the bits of one call, however they are cut; and merges, up to rounding."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels import dtypes
from kernels.accumulate import SUMS
from kernels.reduce import SCALE, add_blocks, sum_all_blocks
from kernels.sequences import moved
from tests import zoo
from tests.oracle import Array

ROWS = 203
TERMS = ("loss_float64", "loss_weight")
STEPS = [1, 7, 31, 32, 33, 64, 100, ROWS, 500]


def parts(example: zoo.Example, step: int) -> Iterator[tuple[Array, Array, Array | None]]:
    samples = example.options.get("sample_weight")
    for start in range(0, len(example.logits), step):
        cut = slice(start, start + step)
        yield example.logits[cut], example.labels[cut], None if samples is None else samples[cut]


def accumulator(example: zoo.Example, **more: Any) -> kernels.LossAccumulator:
    options = {key: value for key, value in example.options.items() if key != "sample_weight"}
    return kernels.LossAccumulator(**options, **more)


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize("options", zoo.OPTIONS)
def test_any_cut_has_the_bits_of_one_call(options: str, soft: bool, dtype: dtypes.DType) -> None:
    example = zoo.example((ROWS, 10), 1, dtype, options, soft=soft)
    for reduction in ("mean", "sum"):
        want = kernels.cross_entropy(*example[:2], reduction=reduction, **example.options)
        for step in STEPS:
            fed = accumulator(example, reduction=reduction)
            for logits, labels, samples in parts(example, step):
                fed.update(logits, labels, sample_weight=samples)
            got = fed.result()
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize(("shape", "axis"), [((40, 900), 1), ((40, 6, 11), 1), ((40, 3, 5, 6), 3)])
def test_other_shapes(shape: tuple[int, ...], axis: int, dtype: dtypes.DType) -> None:
    """Parts of the first axis; positions after it come along."""
    example = zoo.example(shape, axis, dtype, "all")
    want = kernels.cross_entropy(*example[:2], **example.options)
    for step in (1, 3, 32):
        fed = accumulator(example)
        for logits, labels, samples in parts(example, step):
            fed.update(logits, labels, sample_weight=samples)
        assert fed.result().tobytes() == want.tobytes()


@pytest.mark.parametrize("shift", [0, 2, -1])
def test_terms_of_parts_add_up_to_the_bits_of_the_whole(shift: int, dtype: dtypes.DType) -> None:
    """Another machine's terms are as good as one's own: in blocks, at the places of the logits."""
    example = zoo.example((9, 7, 13), 2, dtype, "all")
    options = {**example.options, "shift": shift}
    want = kernels.cross_entropy(*example[:2], outputs=SUMS, **options)
    terms = []
    for logits, labels, samples in parts(example, 4):
        own = options | {"sample_weight": samples}
        got = kernels.cross_entropy(logits, labels, outputs=TERMS, **own)
        terms.append([moved(got[name], -shift, 0.0).reshape(-1) for name in TERMS])
    loss, weight = add_blocks(sum_all_blocks(np.concatenate(terms, axis=1)))
    assert (loss / SCALE, weight / SCALE) == (want["loss_sum"], want["weight_sum"])


def test_a_result_may_be_had_between() -> None:
    """It is that of the rows so far, and asking for it changes nothing."""
    example = zoo.example((ROWS, 10), 1, dtypes.FLOAT32, "weight")
    fed = accumulator(example)
    done = 0
    for logits, labels, _ in parts(example, 41):
        fed.update(logits, labels)
        done += len(logits)
        want = kernels.cross_entropy(
            example.logits[:done], example.labels[:done], **example.options
        )
        assert fed.result().tobytes() == fed.result().tobytes() == want.tobytes()


def test_merge_is_associative_up_to_rounding() -> None:
    example = zoo.example((ROWS, 10), 1, dtypes.FLOAT64, "all")
    chunks = list(parts(example, 29))

    def fed(some: list[Any]) -> kernels.LossAccumulator:
        one = accumulator(example)
        for logits, labels, samples in some:
            one.update(logits, labels, sample_weight=samples)
        return one

    want = float(kernels.cross_entropy(*example[:2], **example.options))
    left = fed(chunks[:2])
    left.merge(fed(chunks[2:3]))
    left.merge(fed(chunks[3:]))
    right, last = fed(chunks[:2]), fed(chunks[2:3])
    last.merge(fed(chunks[3:]))
    right.merge(last)
    backwards = fed(chunks[3:])
    backwards.merge(fed(chunks[2:3]))
    backwards.merge(fed(chunks[:2]))
    for one in (left, right, backwards):
        assert float(one.result()) == pytest.approx(want, rel=1e-14)


def test_merge_leaves_the_other_alone_and_goes_on() -> None:
    example = zoo.example((ROWS, 10), 1, dtypes.FLOAT64, "plain")
    chunks = list(parts(example, 50))
    first, second = accumulator(example), accumulator(example)
    first.update(*chunks[0][:2])
    second.update(*chunks[1][:2])
    before = second.result().tobytes()
    first.merge(second)
    for logits, labels, _ in chunks[2:]:
        first.update(logits, labels)
    assert second.result().tobytes() == before
    want = float(kernels.cross_entropy(*example[:2], class_axis=1))
    assert float(first.result()) == pytest.approx(want, rel=1e-14)


def test_merge_with_itself_counts_twice() -> None:
    fed = kernels.LossAccumulator(reduction="sum")
    fed.update(np.zeros((3, 2)), np.zeros(3, int))
    fed.merge(fed)
    assert float(fed.result()) == pytest.approx(6 * np.log(2), rel=1e-15)


def test_merge_with_nothing_is_nothing(dtype: dtypes.DType) -> None:
    example = zoo.example((ROWS, 10), 1, dtype, "plain")
    fed = accumulator(example)
    fed.update(*example[:2])
    want = fed.result()
    empty = accumulator(example)
    fed.merge(empty)
    empty.merge(fed)
    for one in (fed, empty):
        assert one.result().dtype == want.dtype
        assert float(one.result()) == pytest.approx(float(want), rel=1e-7)


@pytest.mark.parametrize("rows", [None, 0, 5], ids=["never fed", "no rows", "all ignored"])
def test_mean_of_nothing(rows: int | None) -> None:
    def fed(**options: Any) -> kernels.LossAccumulator:
        one = kernels.LossAccumulator(**options)
        if rows is not None:
            one.update(np.zeros((rows, 3), np.float32), np.full(rows, -100))
        return one

    assert np.isnan(fed().result())
    assert fed(empty="zero").result() == 0
    assert fed(reduction="sum").result() == 0
    with pytest.raises(kernels.InvalidInput):
        fed(empty="error").result()


def test_a_refused_update_adds_nothing() -> None:
    example = zoo.example((ROWS, 10), 1, dtypes.FLOAT32, "plain")
    fed = accumulator(example)
    fed.update(*example[:2])
    want = fed.result().tobytes()
    labels = np.zeros(40, int)
    labels[33] = 10
    with pytest.raises(kernels.InvalidInput) as caught:
        fed.update(np.zeros((40, 10), np.float32), labels)
    assert (caught.value.field, caught.value.position) == ("labels", (33,))
    assert fed.result().tobytes() == want


def test_float64_rows_make_a_float64_result() -> None:
    fed = kernels.LossAccumulator()
    fed.update(np.zeros((3, 2), np.float32), np.zeros(3, int))
    assert fed.result().dtype == np.float32
    fed.update(np.zeros((3, 2), np.float64), np.zeros(3, int))
    assert fed.result().dtype == np.float64


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reduction", "none"),
        ("reduction", "average"),
        ("empty", "0"),
        ("outputs", ["loss"]),
        ("sample_weight", np.ones(3)),
    ],
    ids=str,
)
def test_wrong_options(field: str, value: Any) -> None:
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.LossAccumulator(**{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_split_merges_to_the_loss_of_the_whole(reduction: str, data: st.DataObject) -> None:
    """By sums alone, in any order, twice over; and fed to an accumulator."""
    soft, ignoring = data.draw(st.booleans()), data.draw(st.booleans())
    options = data.draw(st.sampled_from(sorted(zoo.OPTIONS)))
    kinds = zoo.WITH_SOFTCAP if options == "softcap" else dtypes.FLOATS
    dtype = data.draw(st.sampled_from(kinds))
    rows = data.draw(st.integers(1, 70))
    example = zoo.example((rows, 7), 1, dtype, options, soft=soft)
    if ignoring and not soft:
        example.labels[data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))] = -100
    names = ("loss", "per_element", *SUMS)
    whole = kernels.cross_entropy(
        *example[:2], outputs=names, reduction=reduction, **example.options
    )
    cuts = sorted({0, rows, *data.draw(st.lists(st.integers(0, rows), max_size=5))})
    answers = []
    for start, stop in itertools.pairwise(cuts):
        own = {**example.options}
        if "sample_weight" in own:
            own["sample_weight"] = own["sample_weight"][start:stop]
        logits, labels = example.logits[start:stop], example.labels[start:stop]
        how = data.draw(st.sampled_from(["none", "mean", "sum"]))
        answers.append(kernels.cross_entropy(logits, labels, outputs=SUMS, reduction=how, **own))
    told = {
        name: example.options[name]
        for name in ("label_smoothing", "z_loss")
        if name in example.options
    }
    merged = kernels.merge(answers, reduction=reduction, **told)
    shuffled = data.draw(st.permutations(answers))
    assert repr(merged) == repr(kernels.merge(shuffled, reduction=reduction, **told))
    halves = [kernels.merge(part, **told) for part in (answers[:2], answers[2:])]
    fed = kernels.LossAccumulator(reduction=reduction, **told)
    for part in halves:
        fed.add(part)
    again = kernels.merge(halves, reduction=reduction, **told)
    for got in (merged, again, {"loss": fed.result(), **fed.sums()}):
        assert got["count"] == whole["count"] == (rows if soft else (example.labels != -100).sum())
        for name in ("loss", "weight_sum", "loss_sum"):
            rounding = 1e-6 if name == "loss" else 1e-12
            np.testing.assert_allclose(got[name], whole[name], rtol=rounding, atol=1e-30)
    exact = whole["per_element"].astype(np.float64).sum()
    np.testing.assert_allclose(whole["loss_sum"], exact, rtol=1e-6)


def test_a_merge_over_nothing_is_that_of_one_call() -> None:
    logits, labels = np.ones((3, 2), np.float32), np.full(3, -100)
    for empty in ("nan", "zero"):
        whole = kernels.cross_entropy(logits, labels, empty=empty)
        nothing = kernels.cross_entropy(logits, labels, empty=empty, outputs=SUMS)
        np.testing.assert_array_equal(kernels.merge([nothing] * 2, empty=empty)["loss"], whole)
        np.testing.assert_array_equal(kernels.merge([], empty=empty)["loss"], whole)
    with pytest.raises(kernels.InvalidInput, match="over nothing"):
        kernels.merge([], empty="error")
    cancelling = {"count": 2, "weight_sum": 0.0, "loss_sum": -1.5}
    assert kernels.merge([cancelling])["loss"] == -np.inf
    assert np.isnan(kernels.merge([cancelling], z_loss=0.1)["loss"])


def test_parts_may_hold_the_texts_of_json() -> None:
    parts: list[dict[str, Any]] = [
        {"count": 1, "weight_sum": 1.0, "loss_sum": "Infinity"},
        {"count": 2, "weight_sum": 2.0, "loss_sum": 3.0},
    ]
    assert kernels.merge(parts)["loss"] == np.inf
    parts[1]["loss_sum"] = "-Infinity"
    assert np.isnan(kernels.merge(parts)["loss"])
    huge = {"count": 1, "weight_sum": 1.0, "loss_sum": 1.7e308}
    assert kernels.merge([huge, huge], reduction="sum")["loss"] == np.inf


@pytest.mark.parametrize("part", [{}, {"count": 1, "weight_sum": 1.0}, dict.fromkeys(SUMS, "x")])
def test_a_part_without_its_sums_is_refused(part: dict[str, Any]) -> None:
    for call in (lambda: kernels.merge([part]), lambda: kernels.LossAccumulator().add(part)):
        with pytest.raises(kernels.InvalidInput, match="each part needs count, weight_sum"):
            call()


def test_an_accumulator_counts(dtype: dtypes.DType) -> None:
    example = zoo.example((ROWS, 10), 1, dtype, "all")
    fed = accumulator(example)
    for logits, labels, samples in parts(example, 31):
        fed.update(logits, labels, sample_weight=samples)
    want = kernels.cross_entropy(*example[:2], outputs=SUMS, **example.options)
    assert {name: float(want[name]) for name in SUMS} == fed.sums()
