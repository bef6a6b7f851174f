"""One thread, in order, bounded; what is cancelled in time never runs."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from kernels.steps import Work
from service.compute.lane import SMALL, Lane
from service.errors import Expired, Overloaded

PATIENCE = 30  # seconds until a test that hangs fails


@contextmanager
def a_lane(length: int = 2, seconds: float | None = None) -> Iterator[Lane]:
    lane = Lane("lane-under-test", length, seconds)
    try:
        yield lane
    finally:
        lane.close()


@pytest.fixture
async def lane() -> AsyncIterator[Lane]:
    with a_lane() as made:
        yield made


@contextmanager
def blocked(lane: Lane) -> Iterator[asyncio.Task[bool]]:
    """While it lasts, the lane is busy."""
    release = threading.Event()
    task = asyncio.ensure_future(lane.call(lambda: release.wait(PATIENCE)))
    try:
        yield task
    finally:
        release.set()


async def queued(lane: Lane, function: Callable[[], Any]) -> asyncio.Task[Any]:
    """A task whose work stands in the lane's queue."""
    task = asyncio.ensure_future(lane.call(function))
    await asyncio.sleep(0)
    return task


async def until_busy(lane: Lane) -> None:
    while lane.waiting:
        await asyncio.sleep(0.001)


async def test_work_runs_in_one_thread_and_in_order() -> None:
    seen: list[tuple[int, int]] = []

    with a_lane(length=50) as lane:

        def work(number: int) -> Callable[[], int]:
            def call() -> int:
                seen.append((number, threading.get_ident()))
                return number

            return call

        results = await asyncio.gather(*(lane.call(work(number)) for number in range(50)))
        assert results == list(range(50))
    assert [number for number, _ in seen] == list(range(50))
    assert len({thread for _, thread in seen} | {threading.get_ident()}) == 2


async def test_what_the_work_raises_is_raised(lane: Lane) -> None:
    with pytest.raises(ZeroDivisionError):
        await lane.call(lambda: 1 // 0)
    assert await lane.call(lambda: 1) == 1


async def test_a_full_queue_refuses_and_recovers() -> None:
    with a_lane(length=2) as lane:
        with blocked(lane) as first:
            await asyncio.sleep(0)
            await until_busy(lane)
            waiting = [await queued(lane, lambda: 7) for _ in range(2)]
            with pytest.raises(Overloaded):
                await lane.call(lambda: 8)
        await first
        assert await asyncio.gather(*waiting) == [7, 7]
        assert await lane.call(lambda: 9) == 9


class Held:
    """Something whose end can be seen."""


async def test_work_cancelled_before_its_start_never_runs_and_is_forgotten(lane: Lane) -> None:
    ran: list[Held] = []

    held = Held()
    trace = weakref.ref(held)
    with blocked(lane) as first:
        await asyncio.sleep(0)
        await until_busy(lane)
        task = await queued(lane, lambda held=held: ran.append(held))  # type: ignore[misc]
        del held
        assert lane.waiting == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        gc.collect()
        assert lane.waiting == 0
        assert trace() is None, "what the cancelled work held must not wait for the lane"
    await first
    assert not ran


async def test_work_cancelled_while_it_runs_leaves_the_lane_whole(lane: Lane) -> None:
    with blocked(lane) as first:
        await asyncio.sleep(0)
        await until_busy(lane)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    assert await lane.call(lambda: 3) == 3


async def test_what_ran_last_is_not_held_on_to(lane: Lane) -> None:
    held = Held()
    trace = weakref.ref(held)
    await lane.call(lambda held=held: None)  # type: ignore[misc]
    del held
    while trace() is not None:
        await asyncio.sleep(0.001)


async def test_closing_drops_what_waits_and_refuses_what_comes(lane: Lane) -> None:
    with blocked(lane) as first:
        await asyncio.sleep(0)
        await until_busy(lane)
        waiting = await queued(lane, lambda: 7)
        lane.close(timeout=0)
        with pytest.raises(Overloaded):
            await waiting
        with pytest.raises(Overloaded):
            await lane.call(lambda: 8)
    await first


def work_of(
    steps: Generator[int, None, Any], elements: int = 2 * SMALL, window: int | None = None
) -> Work:
    return Work(elements, 0, False, steps, window)


def steps_of(
    name: str, seen: list[str], count: int, needs: Callable[[int], int] = lambda step: 0
) -> Generator[int, None, Any]:
    for step in range(count):
        yield needs(step)
        seen.append(name)
    return {"name": name}


class Source:
    """Bytes that come when the test says so."""

    def __init__(self) -> None:
        self.filled = 0
        self.progress: Callable[[int], None] = lambda filled: None
        self.told: list[int] = []

    def passed(self, count: int) -> None:
        self.told.append(count)

    def receive(self, filled: int) -> None:
        self.filled = filled
        self.progress(filled)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def test_small_work_overtakes_large_but_cannot_hold_it_up() -> None:
    seen: list[str] = []

    with a_lane(length=100) as lane:
        with blocked(lane):
            await asyncio.sleep(0)
            await until_busy(lane)
            large = asyncio.ensure_future(lane.run(work_of(steps_of("L", seen, 4))))
            await asyncio.sleep(0)
            small = [
                asyncio.ensure_future(lane.run(work_of(steps_of("s", seen, 1), 10)))
                for _ in range(60)
            ]
            await asyncio.sleep(0)
        await asyncio.gather(large, *small)
    assert seen[0] == "s"
    assert seen.count("s") == 60
    # Of the 16 turns before each of the large one's five, a small one takes two.
    runs = "".join(seen).split("L")
    assert [len(run) for run in runs] == [16, 8, 8, 8, 20]


async def test_large_work_goes_on_in_the_order_in_which_it_came(lane: Lane) -> None:
    seen: list[str] = []

    with blocked(lane):
        await asyncio.sleep(0)
        await until_busy(lane)
        tasks = [asyncio.ensure_future(lane.run(work_of(steps_of(name, seen, 3)))) for name in "ab"]
        await asyncio.sleep(0)
    assert await asyncio.gather(*tasks) == [{"name": "a"}, {"name": "b"}]
    assert "".join(seen) == "aaabbb"


@pytest.mark.parametrize(
    ("window", "told"), [(15, [95, 105, 115, 125]), (100, [10, 20, 30, 40]), (None, [])]
)
async def test_the_source_is_told_what_is_done_with(
    window: int | None, told: list[int], lane: Lane
) -> None:
    source = Source()
    steps = steps_of("a", [], 4, needs=lambda step: 10 * (step + 1))
    work = asyncio.ensure_future(lane.run(work_of(steps, window=window), source, 100))
    for filled in range(100, 150, 10):
        source.receive(filled)
        # Before the step's own bytes are there, so that they may take the place of others.
        await until(lambda: len(source.told) >= min(len(told), 1))
    await work
    assert source.told == told


async def test_work_waits_for_its_bytes_while_other_work_runs(lane: Lane) -> None:
    seen: list[str] = []

    source = Source()
    source.filled = 100
    steps = steps_of("a", seen, 3, needs=lambda step: 10 * step)
    first = asyncio.ensure_future(lane.run(work_of(steps), source, 100))
    await until(lambda: seen == ["a"])
    await lane.run(work_of(steps_of("b", seen, 2)))
    source.receive(109)
    await lane.run(work_of(steps_of("c", seen, 1)))
    source.receive(110)
    await until(lambda: seen[-1] == "a")
    source.receive(500)
    await first
    assert "".join(seen) == "abbcaa"


@pytest.mark.parametrize("count", range(5))
async def test_cancelled_work_takes_no_further_step_and_is_forgotten(
    count: int, lane: Lane
) -> None:
    seen: list[str] = []
    entered, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def steps(held: Held) -> Generator[int, None, Any]:
        for _ in range(5):
            yield 0
            seen.append("x")
            entered.release()
            assert go_on.acquire(timeout=PATIENCE)
        return held

    held = Held()
    trace = weakref.ref(held)
    task = asyncio.ensure_future(lane.run(work_of(steps(held))))
    del held
    for step in range(count + 1):
        await asyncio.to_thread(entered.acquire, timeout=PATIENCE)
        if step < count:
            go_on.release()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.release()
    await lane.call(lambda: None)
    del task
    gc.collect()
    assert trace() is None
    assert len(seen) == count + 1


async def test_work_that_is_cancelled_while_its_bytes_come_is_forgotten(lane: Lane) -> None:
    seen: list[str] = []

    source = Source()
    held = Held()
    trace = weakref.ref(held)

    def steps(held: Held) -> Generator[int, None, Any]:
        yield 0
        seen.append("first")
        yield 10
        seen.append("second")
        return held

    task = asyncio.ensure_future(lane.run(work_of(steps(held)), source))
    del held
    await until(lambda: bool(seen))
    await lane.call(lambda: None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    gc.collect()
    assert trace() is None
    source.receive(10)
    await lane.call(lambda: None)
    assert seen == ["first"]


async def test_what_takes_too_long_expires() -> None:
    stop = threading.Event()

    def endless() -> Generator[int, None, Any]:
        while not stop.wait(0.001):
            yield 0

    with a_lane(seconds=0.05) as lane:
        with pytest.raises(Expired, match=r"0\.05 s"):
            await lane.run(work_of(endless()))
        assert await lane.call(lambda: 3) == 3


async def test_waiting_for_bytes_is_not_computing() -> None:
    with a_lane(seconds=0.3) as lane:
        source = Source()
        steps = steps_of("a", [], 2, needs=lambda step: 10 * step)
        task = asyncio.ensure_future(lane.run(work_of(steps), source))
        await asyncio.sleep(0.5)
        source.receive(10)
        assert await task == {"name": "a"}


async def test_an_error_of_the_work_is_not_taken_for_the_deadline() -> None:
    def fail() -> Generator[int, None, Any]:
        yield 0
        raise TimeoutError("its own")

    with a_lane(seconds=PATIENCE) as lane, pytest.raises(TimeoutError, match="its own"):
        await lane.run(work_of(fail()))


async def test_a_function_may_take_as_long_as_it_takes() -> None:
    with a_lane(seconds=0.01) as lane:
        await lane.call(partial(time.sleep, 0.1))


async def test_closing_ends_what_has_begun_after_its_step(lane: Lane) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def steps() -> Generator[int, None, Any]:
        while True:
            yield 0
            entered.set()
            go_on.wait(PATIENCE)

    task = asyncio.ensure_future(lane.run(work_of(steps())))
    await asyncio.to_thread(entered.wait, PATIENCE)
    lane.close(timeout=0)
    go_on.set()
    with pytest.raises(Overloaded, match="shutting down"):
        await task


async def test_a_call_that_takes_too_long_expires_and_one_that_waits_is_never_made(
    lane: Lane,
) -> None:
    made: list[int] = []

    with blocked(lane):
        await asyncio.sleep(0)
        with pytest.raises(Expired, match=r"0\.01 s"):
            await lane.call(lambda: made.append(1), 0.01)
        assert lane.waiting == 0
    assert await lane.call(lambda: 2, PATIENCE) == 2
    release = threading.Event()
    with pytest.raises(Expired):
        await lane.call(lambda: release.wait(PATIENCE), 0.01)
    release.set()
    assert await lane.call(lambda: 3) == 3
    assert made == []
