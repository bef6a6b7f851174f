"""Labels moved by ``shift``, left out by ``mask``, and added up by sequence and ``segments``."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels import dtypes, steps
from kernels.accumulate import SUMS
from kernels.plan import BY_SEQUENCE
from tests import oracle, zoo
from tests.oracle import Array

TERMS = ["loss_float64", "loss_weight"]
NAMES = [*SUMS, *TERMS, "loss", "per_element", "rank", "perplexity", *sorted(BY_SEQUENCE)]


def one_by_one(values: Array, keys: list[Any]) -> dict[Any, float]:
    """The sum of the ``values`` of each key, one added after the other in Python's floats."""
    sums: dict[Any, float] = {}
    for value, key in zip(values.reshape(-1).tolist(), keys, strict=True):
        sums[key] = sums.get(key, 0.0) + value
    return sums


def keys_of(shape: tuple[int, ...], segments: Array | None) -> list[Any]:
    """Index of the sequence of each label, in C order."""
    places = itertools.product(*map(range, shape))
    if segments is None:
        return [place[:1] for place in places]
    if len(shape) < 2:
        return [(int(segments[place]),) for place in places]
    return [(place[0], int(segments[place])) for place in places]


def scored(labels: Array, shift: int, mask: Array | None, ignore_index: int) -> Array:
    """The label that each place of the logits scores, else ``ignore_index``, place by place."""
    out = np.full(labels.shape, ignore_index, np.int64)
    for place in np.ndindex(labels.shape):
        source = (place[0], place[1] + shift, *place[2:]) if shift else place
        inside = not shift or 0 <= source[1] < labels.shape[1]
        if inside and (mask is None or mask[source]):
            out[place] = int(labels[source])
    return out


def hold(
    logits: Array,
    labels: Array,
    *,
    axis: int,
    shift: int = 0,
    mask: Array | None = None,
    segments: Array | None = None,
    ignore_index: int = -100,
    **options: Any,
) -> None:
    """Compare all outputs with those of labels that were moved by hand, and with Python's sums."""
    given = {"class_axis": axis, "ignore_index": ignore_index, **options}
    got = kernels.cross_entropy(
        logits, labels, shift=shift, mask=mask, segments=segments, outputs=NAMES, **given
    )
    there = scored(labels, shift, mask, ignore_index)
    moved = {**given}
    if "sample_weight" in given:
        weights = np.zeros(labels.shape)
        for place in np.ndindex(labels.shape):
            source = (place[0], place[1] + shift, *place[2:]) if shift else place
            if not shift or 0 <= source[1] < labels.shape[1]:
                weights[place] = given["sample_weight"][source]
        moved["sample_weight"] = weights
    want = kernels.cross_entropy(
        logits, there, outputs=["loss", "per_element", "rank", *SUMS], **moved
    )
    for name in ("loss", *SUMS):
        assert got[name].tobytes() == want[name].tobytes(), name
    kept = np.zeros(labels.shape, bool)
    for place in np.ndindex(labels.shape):
        target = (place[0], place[1] + shift, *place[2:]) if shift else place
        if not shift or 0 <= target[1] < labels.shape[1]:
            kept[target] = there[place] != ignore_index
            for name in ("per_element", "rank"):
                assert (
                    got[name][target] == want[name][place] or want[name][place] != want[name][place]
                )
    assert (got["per_element"][~kept] == 0).all()
    assert (got["rank"][~kept] == -1).all()
    hold_terms(got)
    keys = keys_of(labels.shape, segments)
    losses = one_by_one(got["per_element"].astype(np.float64), keys)
    counts = one_by_one(kept, keys)
    misses = one_by_one(kept & (got["rank"] != 0), keys)
    for key in np.ndindex(got["sequence_loss"].shape):
        np.testing.assert_equal(float(got["sequence_loss"][key]), losses.get(key, 0.0))
        assert got["sequence_count"][key] == counts.get(key, 0)
        assert got["sequence_greedy"][key] == (misses.get(key, 0) == 0)
    assert {*losses} <= {*np.ndindex(got["sequence_loss"].shape)}
    assert [got[name].dtype for name in sorted(BY_SEQUENCE)] == [
        np.int64, np.int64, np.float64, np.float64,
    ]  # fmt: skip
    weighed = {} if "sample_weight" not in given else {"weights": given["sample_weight"]}
    hold_perplexities(got, kept, keys, losses, **weighed)


def hold_terms(got: dict[str, Array]) -> None:
    """Terms of the sums: their types, and that they round and add up to what is known of them."""
    losses, weights = (got[name] for name in TERMS)
    assert (losses.dtype, weights.dtype) == (np.float64, np.float64)
    assert (losses.shape, weights.shape) == (got["per_element"].shape, got["per_element"].shape)
    assert losses.astype(got["per_element"].dtype).tobytes() == got["per_element"].tobytes()
    with np.errstate(all="ignore"):
        for terms, name in ((losses, "loss_sum"), (weights, "weight_sum")):
            np.testing.assert_allclose(terms.sum(), got[name], rtol=1e-12, atol=1e-9)


def hold_perplexities(
    got: dict[str, Array], kept: Array, keys: list[Any], losses: dict[Any, float],
    weights: Array | None = None,
) -> None:  # fmt: skip
    with np.errstate(all="ignore"):
        mean = got["loss_sum"] / got["weight_sum"]
        np.testing.assert_allclose(got["perplexity"], np.exp(mean), rtol=1e-12)
        shares = one_by_one(kept * (1.0 if weights is None else weights), keys)
        each = [np.exp(losses[key] / share) for key, share in shares.items() if share]
        want = np.mean(each) if each else np.nan
    np.testing.assert_allclose(got["sequence_perplexity"], want, rtol=1e-12)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    rank = draw(st.sampled_from([2, 3, 1]))
    shape = tuple(draw(st.integers(1, most)) for most in (5, 9, 4)[:rank])
    classes = draw(st.sampled_from([1, 3, 20, 200]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    axis = draw(st.integers(0, rank))
    logits = zoo.cast(
        rng.normal(0, draw(st.sampled_from([0.5, 4, 60])), np.insert(shape, axis, classes)),
        draw(st.sampled_from(dtypes.FLOATS)),
    )
    labels = rng.integers(0, classes, shape)
    shift = draw(st.integers(-shape[1], shape[1])) if rank > 1 else 0
    if draw(st.booleans()):  # greedy sequences
        best = oracle.prediction(logits, axis)
        sure = rng.random(shape) < 0.9
        labels = np.where(sure, np.roll(best, shift, 1) if shift else best, labels)
    ignore_index = draw(st.sampled_from([-100, 0, 255, 2**62]))
    kind = draw(st.sampled_from([np.int64, np.int8, np.uint8, np.uint64, np.int16]))
    labels = labels.astype(kind) if classes <= 100 else labels
    problem = {"logits": logits, "labels": labels, "axis": axis, "shift": shift}
    problem["ignore_index"] = ignore_index
    if draw(st.booleans()):
        mask_kind = draw(st.sampled_from([np.bool_, np.uint8, np.int64]))
        problem["mask"] = (rng.integers(0, 3, shape) > 0).astype(mask_kind)
    if draw(st.booleans()):
        most = math.prod(shape[1:] if rank > 1 else shape)
        problem["segments"] = rng.integers(0, draw(st.integers(1, most + 1)), shape, np.int32)
    if draw(st.booleans()):
        problem["sample_weight"] = rng.choice([0.25, 0.5, 1, 2], shape)
    problem["reduction"] = draw(st.sampled_from(["mean", "sum"]))
    return problem


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_labels_are_scored_where_they_are_moved_to(problem: dict[str, Any]) -> None:
    hold(problem.pop("logits"), problem.pop("labels"), **problem)


@pytest.mark.parametrize("name", [name for name in zoo.ROWS if "thousand" not in name])
def test_odd_rows_are_greedy_as_their_rank_is(name: str, dtype: dtypes.DType) -> None:
    """NaN, infinities, ties, huge logits; each label in turn, of rows and of planes."""
    rows = zoo.cast(zoo.ROWS[name], dtype)
    best = oracle.prediction(rows, 1)
    for labels in (best, np.random.default_rng(5).integers(0, rows.shape[1], len(rows))):
        for logits, axis in ((rows, 1), (np.array(rows.T, order="C"), 0)):
            got = kernels.cross_entropy(
                logits, labels, class_axis=axis, outputs=["rank", "sequence_greedy"]
            )
            assert ((got["rank"] == 0) == got["sequence_greedy"]).all()


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("classes", [2, 5, 17, 300])
def test_an_output_alone_is_what_it_is_beside_all(
    classes: int, axis: int, dtype: dtypes.DType
) -> None:
    """Half of the sequences are greedy, and most labels of the others: any may be left out."""
    rng = np.random.default_rng(classes)
    logits = zoo.cast(rng.normal(0, 2, (12, 21, classes)), dtype)
    likeliest = oracle.widen(logits).argmax(-1)
    labels = likeliest.copy()
    labels[:6, 7] = (likeliest[:6, 7] + 1) % classes
    given: dict[str, Any] = {"class_axis": axis}
    logits = np.ascontiguousarray(np.moveaxis(logits, -1, axis))
    beside = kernels.cross_entropy(logits, labels, outputs=NAMES, **given)
    assert beside["sequence_greedy"].tolist() == [0] * 6 + [1] * 6
    for name in NAMES:
        alone = kernels.cross_entropy(logits, labels, outputs=[name], **given)[name]
        assert alone.tobytes() == beside[name].tobytes(), name


def test_long_rows_that_threads_share() -> None:
    logits = np.random.default_rng(1).normal(0, 1, (2, 1, 200_000)).astype(np.float32)
    labels = np.array([[logits[0].argmax()], [7]])
    for order in ([0, 1], [1, 0]):
        got = kernels.cross_entropy(
            logits[order], labels[order], class_axis=-1, outputs=["sequence_greedy"]
        )
        assert got["sequence_greedy"].tolist() == [int(place == 0) for place in order]


def test_of_class_probabilities_losses_and_counts_by_sequence(dtype: dtypes.DType) -> None:
    example = zoo.example((4, 6, 9), 2, dtype, "plain", soft=True)
    names = ["per_element", "sequence_loss", "sequence_count", "sequence_perplexity"]
    segments = np.arange(24).reshape(4, 6) % 3
    got = kernels.cross_entropy(*example[:2], outputs=names, segments=segments, **example.options)
    sums = one_by_one(got["per_element"].astype(np.float64), keys_of((4, 6), segments))
    assert got["sequence_loss"].shape == (4, 3)
    assert [sums[key] for key in np.ndindex(4, 3)] == got["sequence_loss"].reshape(-1).tolist()
    assert (got["sequence_count"] == 2).all()
    with pytest.raises(kernels.InvalidInput, match="sequence_greedy is that of a class index"):
        kernels.cross_entropy(*example[:2], outputs=["sequence_greedy"], **example.options)


def test_in_steps_and_log_probs_have_the_same_bits(dtype: dtypes.DType) -> None:
    example = zoo.example((8, 40, 300), 2, dtype, "sample_weight")
    options = {**example.options, "shift": 2, "mask": np.arange(320).reshape(8, 40) % 5 > 0}
    whole = kernels.cross_entropy(*example[:2], outputs=NAMES, **options)
    some = steps.cross_entropy(*example[:2], outputs=NAMES, step=20_000, **options).run()
    assert [some[name].tobytes() for name in NAMES] == [whole[name].tobytes() for name in NAMES]
    assert whole["count"] < 300
    log_probs = kernels.log_softmax(example.logits, class_axis=2)
    own = [name for name in NAMES if name not in ("rank", "sequence_greedy", *TERMS)]
    got = kernels.nll_loss(log_probs, example.labels, outputs=own, **options)
    for name in own:
        np.testing.assert_allclose(got[name], whole[name], rtol=3e-5, atol=1e-6)


def test_bits_per_byte(dtype: dtypes.DType) -> None:
    logits, labels, _ = zoo.example((3, 4, 5), 2, dtype, "plain")
    for reduction in ("none", "mean", "sum"):
        got = kernels.cross_entropy(
            logits, labels, class_axis=2, bytes=17, reduction=reduction,
            outputs=["bits_per_byte", "loss_sum"],
        )  # fmt: skip
        want = float(got["loss_sum"]) / math.log(2.0) / 17
        assert got["bits_per_byte"] == pytest.approx(want, rel=1e-14)
        assert got["bits_per_byte"].dtype == np.float64


@pytest.mark.parametrize(("empty", "want"), [("nan", math.nan), ("zero", 1.0)])
def test_perplexities_over_nothing(empty: str, want: float) -> None:
    names = ["perplexity", "sequence_perplexity"]
    for shape in ((2, 3), (0, 3), (2, 0)):
        logits, labels = np.ones((*shape, 4), np.float32), np.full(shape, -100)
        got = kernels.cross_entropy(logits, labels, class_axis=-1, empty=empty, outputs=names)
        np.testing.assert_array_equal([got[name] for name in names], [want, want])
        for name in names:
            with pytest.raises(kernels.InvalidInput, match="over nothing"):
                kernels.cross_entropy(logits, labels, class_axis=-1, empty="error", outputs=[name])


def test_a_perplexity_beyond_float64_is_infinite() -> None:
    logits = np.array([[[0.0, 5000.0], [3.0, 3.0]]], np.float32)
    got = kernels.cross_entropy(
        logits, np.zeros((1, 2), int), class_axis=-1,
        outputs=["perplexity", "sequence_perplexity"],
    )  # fmt: skip
    assert got["perplexity"] == got["sequence_perplexity"] == math.inf


def test_the_gradient_is_where_the_logits_are() -> None:
    logits, labels, _ = zoo.example((2, 5, 7), 2, dtypes.FLOAT64, "plain")
    options: dict[str, Any] = {
        "class_axis": 2,
        "outputs": ["gradient", "log_sum_exp", "prediction"],
    }
    got = kernels.cross_entropy(logits, labels, shift=1, **options)
    want = kernels.cross_entropy(logits, scored(labels, 1, None, -100), **options)
    for name in options["outputs"]:
        assert got[name].tobytes() == want[name].tobytes()
    assert (got["gradient"][:, -1] == 0).all()


LOGITS, LABELS = np.zeros((2, 6, 5), np.float32), np.zeros((2, 6), int)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "shift beyond the length": ({"shift": 7}, r"shift is 7, .* \(2, 6\) .* from -6 to 6"),
    "shift far before": ({"shift": -(2**63)}, "must be from -6 to 6"),
    "shift of no axis": (
        {"logits": np.zeros((2, 5)), "labels": np.zeros(2, int), "class_axis": 1, "shift": 1},
        r"shift is 1, but labels of shape \(2,\) have no axis .* \(1, positions\) for one text",
    ),
    "shift that is no integer": ({"shift": 1.0}, "shift must be an integer, not 1.0"),
    "mask of another shape": (
        {"mask": np.ones((2, 5), bool)},
        r"mask has shape \(2, 5\); .* one element for each label, so shape \(2, 6\)",
    ),
    "mask of floats": ({"mask": np.ones((2, 6))}, r"mask must be integers or Boolean.*astype"),
    "segments of another shape": ({"segments": np.ones(6, int)}, r"segments has shape \(6,\)"),
    "segments of floats": ({"segments": np.ones((2, 6), "f4")}, "segments must be integers"),
    "segments below 0": (
        {"segments": np.arange(-2, 10).reshape(2, 6)},
        r"segments\[0, 0\] is -2; segments are numbered from 0 to 6, the number of positions",
    ),
    "segments above the positions": (
        {"segments": np.full((2, 6), 2**63, np.uint64)},
        r"segments\[0, 0\] is 9223372036854775808",
    ),
    "bytes of nothing": ({"bytes": 0}, "bytes must be positive, not 0"),
    "bytes that are missing": ({"outputs": ["bits_per_byte"]}, "bits_per_byte needs bytes"),
    "shift of probabilities": (
        {"labels": np.full((2, 6, 5), 0.2, np.float32), "shift": 1},
        "shift is for labels that are class indices, .* sample_weight of 0",
    ),
    "mask of probabilities": (
        {"labels": np.full((2, 6, 5), 0.2, np.float32), "mask": np.ones((2, 6), bool)},
        "mask is for labels that are class indices",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    given, text = WRONG[name]
    arguments = {"logits": LOGITS, "labels": LABELS, "class_axis": -1, **given}
    with pytest.raises(kernels.InvalidInput, match=text) as caught:
        kernels.cross_entropy(**arguments)
    assert caught.value.field == name.split()[0]


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.uint64])
def test_an_impossible_label_is_named_at_its_own_place(kind: Any) -> None:
    """As it was given, though kernels read it elsewhere, and of another type."""
    labels = LABELS.astype(kind)
    labels[1, 4] = np.iinfo(kind).max
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(LOGITS, labels, class_axis=-1, shift=2)
    assert caught.value.position == (1, 4)
    assert f"labels[1, 4] is {np.iinfo(kind).max}" in caught.value.message
    mask = np.ones((2, 6), np.uint8)
    mask[1, 4] = 0
    hidden = kernels.cross_entropy(
        LOGITS, labels, class_axis=-1, shift=2, mask=mask, outputs=["count"]
    )
    assert hidden["count"] == 7
