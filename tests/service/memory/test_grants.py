"""Many clients and a small budget, on a clock that is not real: all that have begun end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, MutableMapping
from typing import Any

import pytest

from service.codecs import CODECS
from service.errors import Overloaded
from service.memory.budget import Budget, Lease
from service.memory.claims import LARGE
from service.memory.upload import Upload
from service.regimes import SMALL_LEASE_BYTES as SMALL
from service.regimes import TINY_LEASE_BYTES as TINY
from service.request.body import Reception
from tests.service import clock

MIB = 2**20
TOTAL = 64 * MIB
WAIT = 10.0  # seconds
SAFETENSORS = next(codec for codec in CODECS if codec.name == "safetensors")


@pytest.fixture(autouse=True)
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only counting is looked at here, and other threads would not be waited for."""

    async def warm(lease: Lease, size: int) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Lease, "warm", warm)


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """asyncio, on a clock that is not real."""
    return "asyncio", {"loop_factory": clock.Loop}


@pytest.fixture
async def budget() -> AsyncIterator[Budget]:
    """A budget of which nothing is leased at the end."""
    made = Budget(TOTAL, WAIT)
    yield made
    assert (made.leased, made.waiting, len(made.uploads)) == (0, 0, 0)
    assert made._held == made._holders == [0, 0, 0]
    assert not made._claims._of


def now() -> float:
    return asyncio.get_running_loop().time()


class Sender:
    """An ASGI ``receive``: ``size`` bytes in messages of ``piece``, one each ``seconds``."""

    def __init__(self, size: int, piece: int, seconds: float = 0.0) -> None:
        self.left = size
        self.piece = piece
        self.seconds = seconds

    async def __call__(self) -> MutableMapping[str, Any]:
        await asyncio.sleep(self.seconds)
        sent = min(self.left, self.piece)
        self.left -= sent
        return {"type": "http.request", "body": bytes(sent), "more_body": self.left > 0}


async def chunked(budget: Budget, size: int, seconds: float = 0.0, after: int = 0) -> float:
    """A body of unknown length, as it is received, and ``after`` bytes more for its outputs."""
    upload = Upload(Sender(size, 2**18, seconds), None, None, budget.uploads)
    with upload, await budget.lease(0) as lease:
        upload.lease, lease.unknown = lease, budget.most() * 3 // 4
        reception = Reception(upload.receive, None, SAFETENSORS, None, budget.total)
        received = await reception.body(lease)
        assert len(received.memory) == size <= lease.size
        await lease.grow(after)
        await asyncio.sleep(0.01)
        assert budget.leased <= budget.total
    return now()


@pytest.mark.parametrize(
    ("clients", "size"), [(8, 20 * MIB), (20, 20 * MIB), (6, 40 * MIB), (30, 3 * MIB), (40, SMALL)]
)
async def test_bodies_of_unknown_length_all_end(clients: int, size: int, budget: Budget) -> None:
    await asyncio.gather(*(chunked(budget, size, after=100) for _ in range(clients)))


async def test_who_has_begun_waits_for_longer_than_who_has_not(budget: Budget) -> None:
    # Some 6 s each, at the pace that others wait for, and hardly two at a time.
    ended = await asyncio.gather(*(chunked(budget, 20 * MIB, 0.08) for _ in range(6)))
    assert max(ended) > 2 * WAIT


async def test_bodies_that_are_larger_than_they_claim_are_refused_at_once_but_for_one(
    budget: Budget,
) -> None:
    ended = await asyncio.gather(
        *(chunked(budget, 50 * MIB) for _ in range(8)), return_exceptions=True
    )
    assert not isinstance(ended[0], BaseException)
    assert all(isinstance(end, float | Overloaded) for end in ended)
    assert now() < WAIT / 2


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("seed", range(60))
async def test_whatever_fits_alone_ends(seed: int, known: bool, budget: Budget) -> None:
    """Requests hold a body, and grow by what they decode it to, and by outputs."""
    chance = random.Random(seed)

    async def request(budget: Budget) -> None:
        await asyncio.sleep(chance.random() / 10)
        whole = min(int(2 ** chance.uniform(3, 26)), budget.most(LARGE))
        sizes = sorted(chance.randint(1, whole) for _ in range(chance.randint(1, 5)))
        claim = sizes[-1] if known else 0
        with await budget.lease(sizes[0], claim=claim) as lease:
            for size in sizes[1:]:
                await asyncio.sleep(chance.choice([0, 0.001, 0.01]))
                await lease.grow(size - lease.size)
                assert budget.leased <= budget.total
                assert sum(budget._held[1:]) <= budget.most(1)
                assert budget._held[2] <= budget.most(2)
            await asyncio.sleep(chance.choice([0, 0.001, 0.01]))
            await lease.resize(chance.randint(0, sizes[-1]))

    tasks = [asyncio.ensure_future(request(budget)) for _ in range(chance.randint(2, 40))]
    if chance.random() < 0.3:
        await asyncio.sleep(0.05)
        for task in chance.sample(tasks, len(tasks) // 3):
            task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    allowed = (asyncio.CancelledError,) if known else (asyncio.CancelledError, Overloaded)
    assert all(end is None or isinstance(end, allowed) for end in ended), ended
    # Nobody waits for who waits for it: that would have taken as long as any may wait.
    assert now() < WAIT
    assert any(end is None for end in ended) or any(task.cancelled() for task in tasks)


@pytest.mark.parametrize("size", [40_000, 500_000, 20 * MIB])
async def test_growth_that_waits_for_growth_is_ended_at_once(size: int, budget: Budget) -> None:
    async def use(budget: Budget) -> None:
        with await budget.lease(size) as lease:
            await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            await lease.grow(size // 2)
            await asyncio.sleep(0.01)

    count = TOTAL // size
    ended = await asyncio.gather(*(use(budget) for _ in range(count)), return_exceptions=True)
    assert sum(end is None for end in ended) > count // 3
    assert all(end is None or isinstance(end, Overloaded) for end in ended)
    assert now() < WAIT


async def test_growth_that_nothing_is_given_back_for_is_refused_in_time(budget: Budget) -> None:
    with await budget.lease(30 * MIB) as first, await budget.lease(20 * MIB):
        with pytest.raises(Overloaded):
            await first.grow(20 * MIB)
        assert now() == pytest.approx(WAIT)


async def test_tiny_requests_have_a_share_that_nothing_else_takes(budget: Budget) -> None:
    small = [await budget.lease(SMALL) for _ in range(62)]
    waiting = [asyncio.ensure_future(budget.lease(size)) for size in (SMALL, 30 * MIB)]
    await asyncio.sleep(1)
    started = now()
    for _ in range(100):
        with await budget.lease(500), await budget.lease(TINY):
            pass
    assert now() == started
    for lease in small:
        lease.release()
    for task in waiting:
        (await task).release()


async def body_of(budget: Budget, size: int, sender: Sender, ended: list[Any]) -> None:
    """A body of ``size`` bytes, as it is received into as large a lease."""
    try:
        with (
            Upload(sender, None, size, budget.uploads) as upload,
            await budget.lease(size) as lease,
        ):
            upload.lease = lease
            while not upload.over:
                await upload.receive()
        ended.append(True)
    except Overloaded as error:
        ended.append(error)


def senders(sizes: Iterable[int], rate: float) -> list[tuple[int, Sender]]:
    """Bodies of ``sizes`` that come at ``rate`` bytes a second, four times a second."""
    return [(size, Sender(size, max(1, int(rate / 4)), 0.25)) for size in sizes]


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ([8 * MIB] * 7, 8 * MIB),
        ([8 * MIB] * 7, 30 * MIB),
        ([8 * MIB] * 6 + [3 * MIB] * 2, 20 * MIB),
        ([900_000] * 72, 900_000),
        ([900_000] * 72, 40 * MIB),
        ([30_000] * 2236, 30_000),
        ([SMALL] * 62 + [TINY] * 32, TINY),
    ],
)
async def test_slow_bodies_go_where_others_wait(
    sizes: list[int], wanted: int, budget: Budget
) -> None:
    ended: list[Any] = []
    # For minutes, or at a hundredth of the pace that others wait for.
    slow = [
        asyncio.ensure_future(body_of(budget, size, sender, ended))
        for size in set(sizes)
        for size, sender in senders([size] * sizes.count(size), size / WAIT / 100)
    ]
    await asyncio.sleep(WAIT / 2)
    assert not ended
    started = now()
    with await budget.lease(wanted):
        assert now() - started < WAIT
    assert ended
    assert all("too slowly" in error.message for error in ended)
    # No more of them than was needed, up to one body.
    assert sum(sorted(sizes)[: len(ended) - 1]) < max(wanted, *sizes) + budget.total // 8
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_bodies_that_come_at_the_pace_stay_and_nobody_goes_where_none_waits(
    budget: Budget,
) -> None:
    fast: list[Any] = []
    alone: list[Any] = []
    await body_of(budget, *senders([8 * MIB], 8 * MIB / WAIT / 20)[0], alone)
    assert alone == [True]
    tasks = [
        asyncio.ensure_future(body_of(budget, size, sender, fast))
        for size, sender in senders([8 * MIB] * 7, 8 * MIB / WAIT * 1.3)
    ]
    await asyncio.sleep(0.1)
    (await budget.lease(8 * MIB)).release()
    await asyncio.gather(*tasks)
    assert fast == [True] * 7


async def test_a_body_that_stalls_after_most_of_it_goes_as_well(budget: Budget) -> None:
    ended: list[Any] = []
    sender = Sender(50 * MIB, MIB, 0.02)
    task = asyncio.ensure_future(body_of(budget, 50 * MIB, sender, ended))
    await asyncio.sleep(0.9)
    sender.seconds = 3600
    await asyncio.sleep(0.1)
    (await budget.lease(50 * MIB)).release()
    await task
    assert isinstance(ended[0], Overloaded)


async def test_slow_beginnings_go_where_others_wait_to_begin(budget: Budget) -> None:
    async def begin(budget: Budget) -> None:
        with Upload(Sender(2**26, 1, 1), None, 2**26, budget.uploads) as upload:
            async with budget.opening(upload):
                while not upload.over:
                    await upload.receive()

    slow = [asyncio.ensure_future(begin(budget)) for _ in range(32)]
    await asyncio.sleep(WAIT)
    async with budget.opening():
        assert now() < 2 * WAIT
    assert sum(task.done() for task in slow) == 1
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_a_task_that_is_cancelled_as_well_is_cancelled(budget: Budget) -> None:
    ended: list[Any] = []
    task = asyncio.ensure_future(body_of(budget, MIB, Sender(MIB, 1, 100), ended))
    await asyncio.sleep(1)
    next(iter(budget.uploads)).evict()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended
