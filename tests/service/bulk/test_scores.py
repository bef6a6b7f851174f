"""Scores of pieces, merged: those of one accumulator, and of one call with all rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import dtypes
from kernels.reduce import SCALE
from service.bulk import scores
from service.bulk.executors.here import Here
from service.bulk.result import result
from service.bulk.run import Outcome, Run
from service.cli.scoring import score
from service.options import CrossEntropyOptions
from tests import zoo
from tests.service.bulk.corpora import Corpus, corpora


def scored(corpus: Corpus, folder: Path, piece_bytes: int, worst: int = 3) -> dict[str, Any]:
    plan = corpus.planned(folder, piece_bytes, worst)
    outcome: Outcome = Run(plan, Here()).run()
    assert outcome.failures == []
    return result(plan, outcome)


def close(found: Any, wanted: Any) -> bool:
    return bool(np.isclose(found, wanted, rtol=1e-12, atol=0, equal_nan=True))


@given(corpora(), st.integers(1, 3000))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_have_the_bits_of_one_accumulator_and_of_any_other_cut(
    tmp_path: Path, corpus: Corpus, piece_bytes: int
) -> None:
    found, other = scored(corpus, tmp_path, piece_bytes), scored(corpus, tmp_path, 700)
    accumulator = corpus.accumulated()
    wanted = accumulator.sums()
    assert {name: found[name] for name in wanted} == wanted
    loss = np.float32(found["loss"])
    assert np.array_equal(loss, accumulator.result(), equal_nan=True)
    del found["pieces"], other["pieces"]
    assert repr(found) == repr(other)  # a NaN is like itself
    like_one_file(corpus, found)


def like_one_file(corpus: Corpus, found: dict[str, Any]) -> None:
    wanted = score(corpus.whole(), CrossEntropyOptions(**corpus.options), 3)
    for name in ("elements", "ignored", "count", "weight_sum", "loss_sum"):
        assert found[name] == getattr(wanted, name)
    for name in ("loss", "perplexity", "accuracy"):
        assert close(found[name], getattr(wanted, name))
    assert (found["by_sequence"] is None) == (wanted.by_sequence is None)
    if wanted.by_sequence is not None:
        assert found["by_sequence"]["sequences"] == wanted.by_sequence.sequences
        for name in ("greedy", "perplexity"):
            theirs = getattr(wanted.by_sequence, name)
            mine = found["by_sequence"][name]
            assert mine is theirs is None or close(mine, theirs)
    rows = [shard["logits"].shape[0] for shard in corpus.shards]
    for mine, element in zip(found["worst"], wanted.worst, strict=True):
        shard = int(Path(mine["shard"]).stem.rpartition("-")[2])
        row, *inside = mine["position"]
        assert [sum(rows[:shard]) + row, *inside] == element.position
        assert (mine["label"], mine["predicted"]) == (element.label, element.predicted)
        assert mine["loss"] == element.loss


def test_a_dtype_each_is_the_accumulators(tmp_path: Path, dtype: dtypes.DType) -> None:
    rng = np.random.default_rng(1)
    logits = zoo.cast(rng.normal(0, 2, (70, 9)), dtype)
    corpus = Corpus([{"logits": logits, "labels": rng.integers(0, 9, 70)}] * 2, {})
    found = scored(corpus, tmp_path, 9 * dtype.size * 11)
    accumulator = corpus.accumulated()
    assert found["loss_sum"] == accumulator.sums()["loss_sum"]
    assert dtype.result.type(found["loss"]) == accumulator.result()


def test_dtypes_may_differ_and_the_loss_has_the_widest(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 9, 40)
    shards = [
        {"logits": rng.normal(0, 2, (40, 9)).astype(kind), "labels": labels}
        for kind in ("<f4", "<f8")
    ]
    corpus = Corpus(shards, {})
    found, accumulator = scored(corpus, tmp_path, 700), corpus.accumulated()
    assert found["loss"] == accumulator.result()
    assert accumulator.result().dtype == np.float64
    assert found["loss"] != float(np.float32(found["loss"]))


def test_a_prediction_among_nan_is_wrong(tmp_path: Path) -> None:
    logits = np.zeros((4, 3), np.float32)
    logits[1, 2] = logits[2, 0] = np.nan
    corpus = Corpus([{"logits": logits, "labels": np.array([0, 2, 0, 1])}], {})
    found = scored(corpus, tmp_path, 12)
    assert found["accuracy"] == 0.25
    assert math.isnan(found["loss"])
    assert [element["position"] for element in found["worst"]] == [[1], [2], [0]]


def test_bits_per_byte_are_of_the_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shard = {"logits": rng.normal(0, 2, (9, 4)), "labels": rng.integers(0, 4, 9)}
    corpus = Corpus([shard] * 3, {"bytes": 100})
    found = scored(corpus, tmp_path, 50)
    total = corpus.accumulated()._sums()[0]
    assert found["bits_per_byte"] == total / (SCALE * math.log(2.0) * 100)


@pytest.mark.parametrize(
    "labels", [np.full(5, -100), np.empty(0, np.int64)], ids=["ignored", "none"]
)
def test_nothing_to_score_is_nan(tmp_path: Path, labels: zoo.Array) -> None:
    shard = {"logits": np.zeros((len(labels), 3), np.float32), "labels": labels}
    found = scored(Corpus([shard], {}), tmp_path, 50)
    assert math.isnan(found["loss"])
    assert math.isnan(found["accuracy"])
    assert found["count"] == 0
    assert found["worst"] == []


# Shapes of logits, their class axis and the shift of labels.
LAYOUTS = {
    "rows": ((64, 7), 1, 0),
    "long rows": ((24, 5000), 1, 0),
    "sequences": ((4, 16, 7), -1, 2),
    "segments": ((64, 7), 1, 0),
    "planes": ((4, 7, 16), 1, 0),
    "columns": ((64, 7), 1, 0),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_what_is_right_does_not_depend_on_predictions(kind: str) -> None:
    rng, (shape, axis, shift) = np.random.default_rng(2), LAYOUTS[kind]
    # Of five values: equal logits are frequent.
    logits = rng.integers(-2, 3, shape).astype(np.float32)
    for odd in (np.nan, np.inf, -np.inf):
        logits.reshape(-1)[rng.integers(0, logits.size, 9)] = odd
    best = logits.argmax(axis)
    labels = np.where(rng.random(best.shape) < 0.6, best, rng.integers(0, shape[axis], best.shape))
    labels[rng.random(best.shape) < 0.1] = -100
    tensors = {"logits": logits, "labels": np.roll(labels, shift, -1)}
    if kind == "columns":
        tensors["logits"] = np.asfortranarray(logits)
    if kind == "segments":
        tensors["segments"] = rng.integers(0, 5, best.shape)
    options = {"class_axis": axis, "shift": shift}
    (one, told), (other, more) = (
        scores.scored(tensors, options, 5, 9, predicting) for predicting in (False, True)
    )
    assert one.to_bytes() == other.to_bytes()
    right, counted, _ = one.exact.totals()
    assert 0 < right < counted
    assert set(more) == {"per_element", "prediction"}
    assert ("prediction" in told) == (kind in ("planes", "columns"))
