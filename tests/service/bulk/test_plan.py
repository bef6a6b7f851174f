"""Plans: how shards are cut, and which are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from service.bulk import cuts as cutting
from service.bulk.cuts import EACH, LARGEST, SENT, SMALLEST, exactly, rows_of, shared
from service.bulk.plan import Job, Plan, planned
from service.errors import InvalidOption
from tests.service.bulk.corpora import Tensors


def shard(rows: int = 4, classes: int = 3, **more: Any) -> Tensors:
    return {
        "logits": np.zeros((rows, classes), np.float32),
        "labels": np.zeros(rows, np.int64),
        **more,
    }


def plan_of(
    folder: Path, *shards: Tensors, piece_bytes: int = 24, report: bool = False, **query: str
) -> Plan:
    paths = []
    for number, tensors in enumerate(shards):
        paths.append(str(folder / f"{number}.npz"))
        np.savez(paths[-1], **tensors)  # type: ignore[arg-type]
    return planned(paths, Job({}, {}, 3, report), query, piece_bytes)


def reasons(plan: Plan) -> list[str]:
    return [failure.reason for failure in plan.failures]


def test_pieces_follow_on_each_other(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, shard(5), shard(0), shard(1), shard(4))
    pieces = [plan.piece(number) for number in range(plan.pieces)]
    assert [(p.source, p.first, p.stop) for p in pieces] == [
        (0, 0, 2), (0, 2, 4), (0, 4, 5), (2, 0, 1), (3, 0, 2), (3, 2, 4),
    ]  # fmt: skip
    assert [p.position for p in pieces] == [0, 2, 4, 5, 6, 8]
    assert plan.rows == 10
    assert plan.source_at_position(5).location.endswith("2.npz")
    assert plan.source_at_row(6).location.endswith("3.npz")


def test_a_row_is_not_cut_nor_is_a_shard_that_is_one_sequence(tmp_path: Path) -> None:
    assert plan_of(tmp_path, shard(5, 1000)).pieces == 5
    one = shard(50, segments=np.zeros(50, np.int64))
    assert plan_of(tmp_path, one).pieces == 1


def test_pieces_have_so_many_positions_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes memory of its own, however few classes there are."""
    monkeypatch.setattr(cutting, "MOST_POSITIONS", 3)
    assert plan_of(tmp_path, shard(7), piece_bytes=10**6).sources[0].each == 3


@pytest.mark.parametrize("workers", [1, 2, 8, 64, 4096])
@pytest.mark.parametrize("total", [1, 10**7, 10**9, 3 * 10**11, 4 * 10**15])
def test_pieces_are_large_but_each_worker_has_some(total: int, workers: int) -> None:
    for largest in (LARGEST, SENT):
        size = shared(total, workers, largest)
        assert SMALLEST <= size.bytes <= largest
        if size.bytes < largest:
            assert size.bytes == SMALLEST or total / size.bytes > EACH * workers - 1
        assert size.stretched == 2 * largest
    assert shared(total, 0).bytes == min(LARGEST, max(total, SMALLEST))


def test_pieces_of_a_shard_are_nearly_alike() -> None:
    for rows in range(1, 40):
        each, _ = rows_of(exactly(7 * 12), rows, 12, 1)
        pieces = -(-rows // each)
        assert pieces == -(-rows // 7)
        assert each - 1 <= rows / pieces <= each


def test_a_size_may_depend_on_all_shards(tmp_path: Path) -> None:
    paths = []
    for number, rows in enumerate((5, 4)):
        paths.append(str(tmp_path / f"{number}.npz"))
        np.savez(paths[-1], **shard(rows))  # type: ignore[arg-type]
    plan = planned(paths, Job({}, {}, 3), {}, lambda total: exactly(total * 2 // 9))
    assert plan.size == exactly(24)
    assert plan.pieces == 5


@given(
    st.lists(st.integers(0, 60), max_size=9, unique=True),
    st.integers(1, 30),
    st.integers(1, 60),
)
def test_cuts_are_where_reading_starts_if_they_can_be(
    starts: list[int], each: int, rows: int
) -> None:
    starts = sorted({0, *(start for start in starts if start < rows)})
    longest = 2 * each
    cuts = cutting.cuts(starts, each, longest, rows)
    ends = [*cuts[1:], rows]
    assert cuts[0] == 0
    for first, stop in zip(cuts, ends, strict=True):
        assert 0 < stop - first <= longest
        if stop not in starts and stop != rows:
            # No start is near, and what lies between two is cut as if there were none.
            assert stop - first == each
            assert not [s for s in starts if first < s <= first + longest]


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (shard(classes=4), "differs from {0} in its number of classes: 4, not 3"),
        (shard(sample_weight=np.ones(4)), "tensors: labels, logits, sample_weight, not labels"),
        ({**shard(), "labels": np.zeros((4, 3), np.float32)}, "probabilities, not class indices"),
        ({**shard(), "labels": np.zeros(5, np.int64)}, "labels"),
        ({**shard(), "labels": np.zeros((4, 2), np.int64)}, "labels"),
        ({"logits": np.zeros((4, 3, 2)), "labels": np.zeros((4, 2), int)}, "axes: 3, not 2"),
        ({"logits": shard()["logits"]}, "holds no labels"),
    ],
    ids=["classes", "tensors", "soft", "rows", "shape", "rank", "missing"],
)
def test_a_shard_unlike_the_others_is_named(tmp_path: Path, odd: Tensors, reason: str) -> None:
    plan = plan_of(tmp_path, shard(), odd, shard())
    assert [failure.location for failure in plan.failures] == [str(tmp_path / "1.npz")]
    assert reason.format(tmp_path / "0.npz") in reasons(plan)[0]
    assert plan.failures[0].first is None
    assert [piece.source for piece in map(plan.piece, range(plan.pieces))] == [0, 0, 1, 1]


def test_a_shard_that_is_not_there_or_no_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.npz").write_bytes(b"PK")
    np.savez(tmp_path / "good.npz", **shard())  # type: ignore[arg-type]
    paths = [str(tmp_path / name) for name in ("none.npz", "cut.npz", "good.npz")]
    plan = planned(paths, Job({}, {}, 3), {}, 24)
    assert [failure.location for failure in plan.failures] == paths[:2]
    assert reasons(plan)[0] == "No such file or directory"
    assert plan.pieces == 2


def test_shards_of_a_report_are_of_one_form(tmp_path: Path) -> None:
    odd = {**shard(), "logits": np.zeros((4, 3))}
    assert (
        "dtype of the logits: float64" in reasons(plan_of(tmp_path, shard(), odd, report=True))[0]
    )
    assert reasons(plan_of(tmp_path, shard(), odd)) == []


def test_classes_on_the_first_axis_are_refused(tmp_path: Path) -> None:
    turned = {"logits": np.zeros((3, 3)), "labels": np.zeros(3, int)}
    assert "another axis" in reasons(plan_of(tmp_path, turned, class_axis="0"))[0]


def test_options_that_no_shard_could_have_end_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="label_smoothing"):
        plan_of(tmp_path, shard(), label_smoothing="2")
    assert "shift is 1" in reasons(plan_of(tmp_path, shard(), shift="1"))[0]


def test_options_of_the_metadata_are_alike_in_all(tmp_path: Path) -> None:
    paths = []
    for number, notes in enumerate([{"temperature": "2", "bytes": "70"}] * 2 + [{"bytes": "1"}]):
        paths.append(str(tmp_path / f"{number}.safetensors"))
        save_file(shard(), paths[-1], notes)
    plan = planned(paths, Job({}, {}, 3), {}, 24)
    assert plan.job.terms["temperature"] == 2.0
    assert reasons(plan) == [
        f"differs from {paths[0]} in its options: temperature=1.0, not temperature=2.0"
    ]
    assert plan.bytes == 140
    assert planned(paths[:2], Job({}, {}, 3), {}, 24).bytes == 140
    both = planned(paths[:1], Job({}, {}, 3), {"bytes": "5"}, 24)
    assert "both" in reasons(both)[0]


def test_many_shards_are_told_as_they_are_opened(tmp_path: Path) -> None:
    told: list[int] = []
    np.savez(tmp_path / "a.npz", **shard())  # type: ignore[arg-type]
    planned([str(tmp_path / "a.npz")] * 3, Job({}, {}, 3), {}, 24, told.append)
    assert told == [1, 2, 3]
    assert os.path.exists(tmp_path / "a.npz")
