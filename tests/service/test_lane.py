"""One thread, in order, bounded; what is cancelled in time never runs."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.errors import Overloaded
from service.lane import Lane

PATIENCE = 30  # seconds until a test that hangs fails


def run(test: Callable[[Lane], Coroutine[Any, Any, None]], length: int = 2) -> None:
    async def bounded() -> None:
        lane = Lane("lane-under-test", length)
        try:
            async with asyncio.timeout(PATIENCE):
                await test(lane)
        finally:
            lane.close()

    asyncio.run(bounded())


@contextmanager
def blocked(lane: Lane) -> Iterator[asyncio.Task[bool]]:
    """While it lasts, the lane is busy."""
    release = threading.Event()
    task = asyncio.ensure_future(lane.run(lambda: release.wait(PATIENCE)))
    try:
        yield task
    finally:
        release.set()


async def queued(lane: Lane, function: Callable[[], Any]) -> asyncio.Task[Any]:
    """A task whose work stands in the lane's queue."""
    task = asyncio.ensure_future(lane.run(function))
    await asyncio.sleep(0)
    return task


async def until_busy(lane: Lane) -> None:
    while lane.waiting:
        await asyncio.sleep(0.001)


def test_work_runs_in_one_thread_and_in_order() -> None:
    seen: list[tuple[int, int]] = []

    async def test(lane: Lane) -> None:
        def work(number: int) -> Callable[[], int]:
            def call() -> int:
                seen.append((number, threading.get_ident()))
                return number

            return call

        results = await asyncio.gather(*(lane.run(work(number)) for number in range(50)))
        assert results == list(range(50))

    run(test, length=50)
    assert [number for number, _ in seen] == list(range(50))
    assert len({thread for _, thread in seen} | {threading.get_ident()}) == 2


def test_what_the_work_raises_is_raised() -> None:
    async def test(lane: Lane) -> None:
        with pytest.raises(ZeroDivisionError):
            await lane.run(lambda: 1 // 0)
        assert await lane.run(lambda: 1) == 1

    run(test)


def test_a_full_queue_refuses_and_recovers() -> None:
    async def test(lane: Lane) -> None:
        with blocked(lane) as first:
            await asyncio.sleep(0)
            await until_busy(lane)
            waiting = [await queued(lane, lambda: 7) for _ in range(2)]
            with pytest.raises(Overloaded):
                await lane.run(lambda: 8)
        await first
        assert await asyncio.gather(*waiting) == [7, 7]
        assert await lane.run(lambda: 9) == 9

    run(test, length=2)


class Held:
    """Something whose end can be seen."""


def test_work_cancelled_before_its_start_never_runs_and_is_forgotten() -> None:
    ran: list[Held] = []

    async def test(lane: Lane) -> None:
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

    run(test)
    assert not ran


def test_work_cancelled_while_it_runs_leaves_the_lane_whole() -> None:
    async def test(lane: Lane) -> None:
        with blocked(lane) as first:
            await asyncio.sleep(0)
            await until_busy(lane)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        assert await lane.run(lambda: 3) == 3

    run(test)


def test_what_ran_last_is_not_held_on_to() -> None:
    async def test(lane: Lane) -> None:
        held = Held()
        trace = weakref.ref(held)
        await lane.run(lambda held=held: None)  # type: ignore[misc]
        del held
        while trace() is not None:
            await asyncio.sleep(0.001)

    run(test)


def test_closing_drops_what_waits_and_refuses_what_comes() -> None:
    async def test(lane: Lane) -> None:
        with blocked(lane) as first:
            await asyncio.sleep(0)
            await until_busy(lane)
            waiting = await queued(lane, lambda: 7)
            lane.close(timeout=0)
            with pytest.raises(Overloaded):
                await waiting
            with pytest.raises(Overloaded):
                await lane.run(lambda: 8)
        await first

    run(test)
