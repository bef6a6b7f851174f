"""Memory of requests: counted before it is taken, in turn, and never lost."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from service.errors import Overloaded, TooLarge
from service.memory.budget import Budget, Lease
from service.regimes import SMALL_LEASE_BYTES as SMALL

MIB = 2**20
PATIENCE = 30  # seconds until a test that hangs fails


@contextmanager
def a_budget(total: int = 64 * MIB, wait_seconds: float = PATIENCE) -> Iterator[Budget]:
    """A budget of which nothing is leased at the end."""
    budget = Budget(total, wait_seconds)
    yield budget
    gc.collect()
    assert (budget.leased, budget.waiting) == (0, 0)
    assert budget.idle.size <= total // 2


@pytest.fixture
async def budget() -> AsyncIterator[Budget]:
    with a_budget() as made:
        yield made


async def waiting(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that has got as far as it gets at once."""
    task = asyncio.ensure_future(work)
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def test_a_lease_is_counted_until_it_is_released(budget: Budget) -> None:
    with await budget.lease(100) as lease:
        assert (lease.size, budget.leased) == (100, 100)
        await lease.grow(50)
        assert budget.leased == 150
        lease.shrink(120)
        lease.shrink(130)
        assert budget.leased == 120
        await lease.resize(70)
        await lease.resize(90)
        assert budget.leased == 90
    lease.release()
    assert budget.leased == 0


@pytest.mark.parametrize("size", [1, 1000, SMALL, SMALL + 1, 5 * MIB + 1])
async def test_memory_is_writable_and_of_the_size(size: int, budget: Budget) -> None:
    with await budget.lease(size) as lease:
        memory = lease.memory(size)
        assert (memory.size, memory.itemsize) == (size, 1)
        memory[:] = 7


async def test_memory_is_used_again(budget: Budget) -> None:
    lease = await budget.lease(8 * MIB)
    memory = lease.memory(8 * MIB)
    memory[:] = 7
    address = memory.ctypes.data
    del memory
    lease.shrink(0)
    assert budget.idle.size >= 8 * MIB
    with await budget.lease(6 * MIB) as again:
        assert again.memory(6 * MIB).ctypes.data == address
        assert budget.idle.size == 0


async def test_memory_that_may_be_at_work_still_is_not_used_again(budget: Budget) -> None:
    with await budget.lease(8 * MIB) as lease:
        held = lease.memory(8 * MIB)
    assert (budget.leased, budget.idle.size) == (0, 0)
    with await budget.lease(8 * MIB) as other:
        assert not np.shares_memory(held, other.memory(8 * MIB))


async def test_idle_memory_makes_room(budget: Budget) -> None:
    for _ in range(2):
        leases = [await budget.lease(10 * MIB) for _ in range(5)]
        for lease in leases:
            lease.memory(10 * MIB)[:] = 1
        assert budget.leased + budget.idle.size <= budget.total
        for lease in leases:
            lease.shrink(0)
            assert budget.leased + budget.idle.size <= budget.total
        assert 0 < budget.idle.size <= budget.total // 2


async def test_what_never_fits_is_refused_at_once(budget: Budget) -> None:
    with pytest.raises(TooLarge, match=r"67,108,864 bytes .* 58,720,256"):
        await budget.lease(64 * MIB)
    with await budget.lease(30 * MIB) as lease:
        with pytest.raises(TooLarge):
            await lease.grow(30 * MIB)
        assert budget.leased == 30 * MIB


async def test_what_does_not_fit_waits_its_turn(budget: Budget) -> None:
    order: list[str] = []

    async def use(name: str, size: int) -> None:
        with await budget.lease(size):
            order.append(name)

    first = await budget.lease(50 * MIB)
    tasks = [await waiting(use(name, size * MIB)) for name, size in (("a", 50), ("b", 20))]
    assert (budget.waiting, order) == (2, [])
    first.release()
    await asyncio.gather(*tasks)
    assert order == ["a", "b"]


async def test_what_has_begun_comes_before_what_has_not(budget: Budget) -> None:
    first, second = await budget.lease(30 * MIB), await budget.lease(20 * MIB)
    new = await waiting(budget.lease(10 * MIB))
    growing = await waiting(first.grow(20 * MIB))
    second.release()
    await growing
    assert not new.done()
    first.release()
    (await new).release()


async def test_large_requests_never_keep_small_ones_out(budget: Budget) -> None:
    large = await budget.lease(56 * MIB)
    more = await waiting(budget.lease(5 * MIB))
    with await budget.lease(SMALL) as small:
        assert small.size == SMALL
    large.release()
    (await more).release()


async def test_small_requests_do_not_keep_large_ones_out(budget: Budget) -> None:
    small = [await budget.lease(SMALL) for _ in range(10)]
    large = await waiting(budget.lease(56 * MIB))
    late = await waiting(budget.lease(SMALL))
    assert not large.done()
    assert not late.done()
    for lease in small[:4]:
        lease.release()
    (await large).release()
    (await late).release()
    for lease in small:
        lease.release()


async def test_who_waits_too_long_is_refused() -> None:
    with (
        a_budget(wait_seconds=0.01) as budget,
        await budget.lease(30 * MIB) as lease,
        await budget.lease(20 * MIB),
    ):
        for work in (budget.lease(20 * MIB), lease.grow(10 * MIB)):
            with pytest.raises(Overloaded, match="memory"):
                await work
        assert budget.leased == 50 * MIB


async def test_a_lease_that_is_forgotten_is_given_back(budget: Budget) -> None:
    lease = await budget.lease(2 * MIB)
    assert budget.leased
    del lease


@pytest.mark.parametrize("steps", range(8))
async def test_nothing_is_lost_wherever_a_wait_is_cancelled(steps: int, budget: Budget) -> None:
    first = await budget.lease(50 * MIB)

    async def use() -> None:
        with await budget.lease(20 * MIB) as lease:
            await lease.grow(20 * MIB)

    task = asyncio.ensure_future(use())
    behind = asyncio.ensure_future(budget.lease(2 * MIB))
    for step in range(steps):
        await asyncio.sleep(0)
        if step == 2:
            first.release()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    first.release()
    (await behind).release()


@pytest.mark.parametrize("seed", range(20))
async def test_any_order_of_events_ends_with_nothing_leased(seed: int) -> None:
    chance = random.Random(seed)

    async def request(budget: Budget) -> None:
        with await budget.lease(chance.choice([10, SMALL, 3 * MIB, 9 * MIB])) as lease:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
                await lease.grow(chance.choice([10, SMALL, 2 * MIB]))
                lease.memory(chance.choice([10, 2 * MIB]))
                assert budget.leased + budget.idle.size <= budget.total
            if chance.random() < 0.5:
                lease.shrink(chance.choice([0, 10]))

    with a_budget(total=20 * MIB, wait_seconds=0.2) as budget:
        tasks = [asyncio.ensure_future(request(budget)) for _ in range(30)]
        for _ in range(60):
            await asyncio.sleep(0)
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        expected = (asyncio.CancelledError, Overloaded, TooLarge)
        assert all(end is None or isinstance(end, expected) for end in ended)


async def test_the_loop_runs_while_pages_are_faulted_in() -> None:
    with a_budget(total=128 * MIB) as budget:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = await waiting(count())
        lease: Lease = await budget.lease(64 * MIB)
        assert turns > 1
        counting.cancel()
        lease.release()


async def test_beginnings_are_few_and_keep_nothing_from_what_they_wait_for(budget: Budget) -> None:
    order: list[int] = []
    first = await budget.lease(50 * MIB)

    async def use(number: int) -> None:
        async with budget.opening():
            lease = await budget.lease(50 * MIB)
        with lease:
            order.append(number)

    tasks = [await waiting(use(number)) for number in range(200)]
    assert budget.leased - 50 * MIB <= budget.total // 8 // 2
    with await budget.lease(SMALL):
        pass
    first.release()
    await asyncio.gather(*tasks)
    assert order == list(range(200))


async def test_a_beginning_that_waits_too_long_is_refused() -> None:
    with a_budget(wait_seconds=0.01) as budget:

        async def use() -> None:
            async with budget.opening():
                await asyncio.sleep(PATIENCE)

        tasks = [await waiting(use()) for _ in range(100)]
        before = budget.leased
        with pytest.raises(Overloaded, match="memory"):
            async with budget.opening():
                pass
        assert budget.leased == before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
