"""Runs: retries, failures, stops, and pieces in flight."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.bulk import run
from service.bulk.executors import ExecutorLost
from service.bulk.executors.here import Here
from service.bulk.journal import Journal
from service.bulk.plan import Plan
from service.bulk.run import Progress, Run
from service.bulk.work import PieceError, read_task
from tests.service.bulk.test_fold import small


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return small().planned(tmp_path, 24)


class Failing(Here):
    """Executor whose tasks of some pieces fail, each so many times."""

    def __init__(self, times: dict[int, int], error: Exception) -> None:
        self.times, self.error, self.tried = times, error, list[int]()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        position = read_task(args[0])[1].position
        self.tried.append(position)
        if self.times.get(position, 0):
            self.times[position] -= 1
            future: Future[Any] = Future()
            future.set_exception(self.error)
            return future
        return super().submit(fn, *args, **kwargs)


def test_a_piece_that_fails_is_tried_again(plan: Plan) -> None:
    executor = Failing({2: 1, 13: 2}, PieceError("no luck"))
    outcome = Run(plan, executor).run()
    assert outcome.failures == []
    assert outcome.total.to_bytes() == Run(plan, Here()).run().total.to_bytes()
    assert (executor.tried.count(2), executor.tried.count(13)) == (2, 3)


def test_a_piece_that_goes_on_failing_is_named_and_the_rest_is_scored(plan: Plan) -> None:
    told: list[Progress] = []
    executor = Failing({2: 9, 13: 9}, PieceError("labels[2] is 7"))
    outcome = Run(plan, executor, retries=1, told=told.append).run()
    first, second = outcome.failures
    assert (first.location, first.first, first.stop) == (plan.sources[0].location, 2, 4)
    assert (second.location, second.first, second.stop) == (plan.sources[1].location, 2, 4)
    assert first.reason == "labels[2] is 7"
    assert executor.tried.count(2) == 2
    assert outcome.finished == plan.pieces - 2
    assert outcome.total.counts["count"] == plan.rows - 4
    assert (told[-1].failed, told[-1].finished, told[-1].pieces) == (
        2,
        plan.pieces - 2,
        plan.pieces,
    )


def test_whatever_an_executor_raises_has_a_reason(plan: Plan) -> None:
    for error, text in ((MemoryError(), "MemoryError"), (RuntimeError("gone"), "gone")):
        outcome = Run(plan, Failing({2: 9}, error)).run()
        assert [failure.reason for failure in outcome.failures] == [text]


def test_no_more_pieces_are_in_flight_than_asked_for(plan: Plan) -> None:
    class Counting(Here):
        def __init__(self) -> None:
            self.flying = self.most = 0
            self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            self.flying += 1
            self.most = max(self.most, self.flying)
            answer = super().submit(fn, *args, **kwargs)

            def done() -> None:
                self.flying -= 1
                future.set_result(answer.result())

            threading.Timer(0.001, done).start()
            return future

    executor = Counting()
    assert Run(plan, executor, in_flight=3).run().finished == plan.pieces
    assert executor.most == 3


def test_a_straggler_is_waited_for(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that come early take memory, so only so many may."""
    monkeypatch.setattr(run, "_AHEAD", 2)
    late: list[tuple[Future[Any], Any]] = []

    class Straggling(Here):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            answer = super().submit(fn, *args, **kwargs)
            positions.append(read_task(args[0])[1].position)
            if positions[-1] == 2:
                future: Future[Any] = Future()
                late.append((future, answer.result()))
                return future
            if len(positions) > 5:
                for future, result in late:
                    if not future.done():
                        reached.append(positions[-1])
                        future.set_result(result)
            return answer

    positions: list[int] = []
    reached: list[int] = []

    def tick(progress: Progress) -> None:
        if late and not late[0][0].done():
            reached.append(max(positions))
            late[0][0].set_result(late[0][1])

    outcome = Run(plan, Straggling(), in_flight=2, told=tick).run()
    assert outcome.finished == plan.pieces
    assert max(reached) <= 2 + 2 * 2 * 4
    assert outcome.total.to_bytes() == Run(plan, Here()).run().total.to_bytes()


def test_it_can_be_stopped_and_goes_on(plan: Plan, tmp_path: Path) -> None:
    class Stopping(Here):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if len(seen) == 7:
                running.stop()
            seen.append(1)
            return super().submit(fn, *args, **kwargs)

    seen: list[int] = []
    journal = Journal(tmp_path / "journal", plan)
    running = Run(plan, Stopping(), journal=journal)
    outcome = running.run()
    journal.close()
    assert outcome.stopped
    assert 0 < outcome.finished < plan.pieces
    journal = Journal(tmp_path / "journal", plan)
    rest = Failing({}, PieceError(""))
    outcome = Run(plan, rest, journal=journal).run()
    journal.close()
    assert not outcome.stopped
    assert len(rest.tried) + 7 == plan.pieces
    assert outcome.total.to_bytes() == Run(plan, Here()).run().total.to_bytes()


def test_an_executor_that_is_lost_leaves_the_journal(plan: Plan, tmp_path: Path) -> None:
    class Lost(Here):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if read_task(args[0])[1].position >= 11:
                raise ExecutorLost("the scheduler is gone")
            return super().submit(fn, *args, **kwargs)

    journal = Journal(tmp_path / "journal", plan)
    with pytest.raises(ExecutorLost):
        Run(plan, Lost(), journal=journal).run()
    assert len(journal.finished()) == 6
    journal.close()


def test_any_executor_of_the_standard_library_will_do(plan: Plan) -> None:
    executor: Executor
    with ThreadPoolExecutor(3) as executor:
        outcome = Run(plan, executor, in_flight=5).run()
    assert outcome.total.to_bytes() == Run(plan, Here()).run().total.to_bytes()


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "changed"])
def test_a_shard_that_goes_or_changes_meanwhile_is_named(plan: Plan, gone: bool) -> None:
    path = Path(plan.sources[1].location)
    if gone:
        path.unlink()
    else:
        os.utime(path, ns=(1, 1))
    outcome = Run(plan, Here(), retries=0).run()
    assert {failure.location for failure in outcome.failures} == {str(path)}
    for failure in outcome.failures:
        assert failure.reason.startswith("No such file" if gone else "changed since the plan: ")
    assert outcome.total.counts["elements"] == plan.rows - 11
