"""Folding of results: any order of arrival, any end of the process, the same state."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.report import Report, report_of
from service.bulk import fold
from service.bulk.fold import Fold
from service.bulk.journal import Journal
from service.bulk.plan import Plan
from service.bulk.work import Result, score_piece
from tests.service.bulk.corpora import Corpus

anew = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def small(shards: int = 4, rows: int = 11, classes: int = 3) -> Corpus:
    rng = np.random.default_rng(5)
    return Corpus(
        [
            {
                "logits": rng.normal(0, 9, (rows, classes)).astype(np.float32),
                "labels": rng.integers(0, classes, rows),
            }
            for _ in range(shards)
        ],
        {},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards")


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    """Plan of 24 pieces."""
    return small().planned(folder, 24)


@pytest.fixture(scope="module")
def results(plan: Plan) -> list[Result]:
    return [Result.from_bytes(score_piece(plan.task(n))) for n in range(plan.pieces)]


def state(found: Fold) -> list[Any]:
    return [found.next, found.finished, found.total.to_bytes(), found.total.sums()]


def in_order(plan: Plan, results: list[Result], failed: set[int] | None = None) -> Fold:
    found = Fold(plan, None)
    for number, result in enumerate(results):
        found.fail(number) if number in (failed or ()) else found.put(number, result)
    found.advance()
    return found


@given(st.randoms(use_true_random=False), st.sets(st.integers(0, 23), max_size=3))
@anew
def test_results_may_come_in_any_order(
    plan: Plan, results: list[Result], order: random.Random, failed: set[int]
) -> None:
    numbers = list(range(plan.pieces))
    order.shuffle(numbers)
    found = Fold(plan, None)
    for number in numbers:
        found.fail(number) if number in failed else found.put(number, results[number])
        if order.random() < 0.3:
            found.advance()
    found.advance()
    assert state(found) == state(in_order(plan, results, failed))
    assert found.finished == plan.pieces - len(failed)


@given(
    st.randoms(use_true_random=False),
    st.lists(st.integers(1, 10), min_size=1, max_size=6),
    st.integers(1, 9),
    st.sets(st.integers(0, 23), max_size=2),
)
@anew
def test_a_process_may_end_at_any_moment(
    plan: Plan,
    results: list[Result],
    tmp_path_factory: pytest.TempPathFactory,
    order: random.Random,
    lives: list[int],
    compacted: int,
    failed: set[int],
) -> None:
    """Each life takes some pieces, and loses those that it has not saved; failures are tried anew.

    No piece is given twice to one fold: it would count twice.
    """
    path = tmp_path_factory.mktemp("journal") / "run.journal"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "_COMPACTED", compacted)
        for life in [*lives, plan.pieces]:
            journal = Journal(path, plan)
            found = Fold(plan, journal)
            missing = [number for number in range(plan.pieces) if not found.has(number)]
            order.shuffle(missing)
            for number in missing[:life]:
                if number in failed and life < plan.pieces:
                    found.fail(number)
                else:
                    found.put(number, results[number])
                if order.random() < 0.4:
                    found.advance()
                if order.random() < 0.4 or life == plan.pieces:
                    found.save()
            if life == plan.pieces:
                found.advance()
                found.save(last=True)
            journal.close()
    assert state(found) == state(in_order(plan, results))
    journal = Journal(path, plan)
    assert state(Fold(plan, journal)) == state(found)
    journal.close()


@pytest.fixture(scope="module")
def reports(folder: Path) -> tuple[Plan, list[Result], bytes]:
    """Plan of a report, the results of its pieces, and the report of all rows at once."""
    corpus = small()
    plan = corpus.planned(folder, 24, report=True)
    results = [Result.from_bytes(score_piece(plan.task(n))) for n in range(plan.pieces)]
    return plan, results, report_of(**corpus.whole()).to_bytes()


@given(st.randoms(use_true_random=False), st.integers(1, 24))
@anew
def test_a_report_is_that_of_all_rows_at_once(
    reports: tuple[Plan, list[Result], bytes],
    tmp_path_factory: pytest.TempPathFactory,
    order: random.Random,
    life: int,
) -> None:
    plan, results, whole = reports
    path = tmp_path_factory.mktemp("journal") / "run.journal"
    now = iter(range(0, 10**6, 7))  # every save is due
    for some in (life, plan.pieces):
        journal = Journal(path, plan)
        found = Fold(plan, journal, lambda: float(next(now)))
        missing = [number for number in range(plan.pieces) if not found.has(number)]
        order.shuffle(missing)
        for number in missing[:some]:
            found.put(number, results[number])
            found.advance()
            found.save()
        journal.close()
    assert found.report is not None
    assert found.report.to_bytes() == whole


def test_a_missing_piece_of_a_report_has_rows_and_counts_for_nothing(
    reports: tuple[Plan, list[Result], bytes], tmp_path: Path
) -> None:
    plan, results, _ = reports
    journal = Journal(tmp_path / "journal", plan)
    found = Fold(plan, journal)
    for number, result in enumerate(results):
        found.fail(number) if number in (0, 7) else found.put(number, result)
    found.advance()
    found.save(last=True)
    assert found.report is not None
    gone = sum(plan.piece(number).stop - plan.piece(number).first for number in (0, 7))
    assert found.report.positions == plan.rows
    assert found.report.count == plan.rows - gone
    journal.close()
    # What failed is tried anew, and all after it in the order of rows.
    journal = Journal(tmp_path / "journal", plan)
    assert [number for number in range(plan.pieces) if Fold(plan, journal).has(number)] == []
    journal.close()
    assert isinstance(found.report, Report)


def test_a_report_is_saved_now_and_then(
    reports: tuple[Plan, list[Result], bytes], tmp_path: Path
) -> None:
    """It may have many megabytes."""
    plan, results, _ = reports
    journal, times = Journal(tmp_path / "journal", plan), [0.0]
    found = Fold(plan, journal, lambda: times[0])
    saved = []
    for number in range(6):
        times[0] += 2.0
        found.put(number, results[number])
        found.advance()
        found.save()
        prefix = journal.prefix()
        saved.append(0 if prefix is None else prefix.pieces)
    assert saved == [0, 0, 3, 3, 3, 6]
    journal.close()
