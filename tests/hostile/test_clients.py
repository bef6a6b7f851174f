"""Slow, greedy and vanishing clients: who is answered, and what is held afterwards.

``python -m benchmarks fire`` sends ten times as many, and looks at the clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from benchmarks import requests
from benchmarks.client import Client, Request
from benchmarks.hostile import crowd
from benchmarks.hostile.normal_client import leased_bytes, normal_requests
from benchmarks.problems import Case, data_for
from benchmarks.processes import forget_peak, memory
from benchmarks.server import Server
from tests.hostile.conftest import MEMORY_BYTES

MIB = 2**20
PATIENCE = 60  # seconds until a test that hangs fails
# Of the memory, an eighth is for small requests only.
FOR_LARGE = MEMORY_BYTES * 7 // 8


def within_patience(holds: Callable[[], bool]) -> bool:
    """True if ``holds`` returns true before the patience ends."""
    patience = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > patience:
            return False
        time.sleep(0.02)
    return True


async def test_slow_clients_keep_nobody_out(server: Server) -> None:
    async with crowd.slow(server.address, headers=50, bodies=50):
        seen = await asyncio.to_thread(normal_requests, server, 100)
    assert (len(seen.seconds), seen.refused) == (100, 0)
    assert within_patience(lambda: leased_bytes(server) == 0)


async def test_what_does_not_fit_is_told_to_come_again(server: Server) -> None:
    size, count = 2 * MIB, 60
    fit = FOR_LARGE // size - 1  # so that one of them can grow, and all can end
    forget_peak(server.process)
    base = memory(server.process)

    async def others_are_answered(held: crowd.Held) -> None:
        async with asyncio.timeout(PATIENCE):
            while held.answered < count - fit:
                await asyncio.sleep(0.02)
        # What waits no longer has left the others their memory, and small requests theirs.
        assert size * fit <= leased_bytes(server) <= FOR_LARGE
        assert normal_requests(server, 10).refused == 0

    held = await crowd.hold(server.address, count, size, others_are_answered)
    # The bodies that are received are no tensors, and are told so.
    assert held.statuses == {400: fit, 503: count - fit}
    assert (held.resets, held.silent) == (0, 0)
    assert memory(server.process, "VmHWM") - base <= MEMORY_BYTES + 64 * MIB
    assert within_patience(lambda: leased_bytes(server) == 0)


async def test_clients_that_go_in_mid_body_hold_nothing(server: Server) -> None:
    await crowd.vanish(server.address, 100, 2 * MIB)
    assert within_patience(lambda: leased_bytes(server) == 0)
    assert normal_requests(server, 10).refused == 0


def test_small_requests_overtake_a_large_one(server: Server) -> None:
    data = data_for(Case((500, 8000)))
    whole = requests.v2({"labels": data.labels, "logits": data.logits})
    *first, logits = whole.body
    with Client(server) as large:
        large.send(Request(whole.head, [*first, logits[: len(logits) // 2]]))
        assert within_patience(lambda: leased_bytes(server) > data.case.nbytes)
        assert normal_requests(server, 50).refused == 0
        loss = requests.v2_loss(large.exchange(Request(b"", [logits[len(logits) // 2 :]])))
    assert data.loss_error(loss) < 1e-5


def test_what_the_benchmarks_send_is_the_same_in_every_format(server: Server) -> None:
    data = data_for(Case((4, 5)))
    tensors = {"labels": data.labels, "logits": data.logits}
    with Client(server) as client:
        for request, loss in (
            (requests.v2(tensors), requests.v2_loss),
            (requests.v2(dict(reversed(tensors.items()))), requests.v2_loss),
            (requests.safetensors(tensors), requests.safetensors_loss),
            (requests.json_text(tensors, requests.V1), requests.json_loss),
        ):
            assert data.loss_error(loss(client.exchange(request))) < 1e-6
