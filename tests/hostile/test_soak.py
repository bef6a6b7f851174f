"""Mixed requests leave nothing behind; and if they did, this would notice."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from benchmarks.server import Server, started
from tests.hostile.leaky import LEAK
from tests.hostile.soak import Soak

# A longer run is asked for with LOSSD_SOAK_REQUESTS.
REQUESTS = int(os.environ.get("LOSSD_SOAK_REQUESTS", "3600"))
# Until every buffer, cache and thread has been needed once.
FIRST = 1200
# Bytes a request. An allocator that goes on to fragment comes to some 100 in a run as short.
MOST = LEAK / 2


def growth(server: Server) -> float:
    with closing(Soak(server)) as soak:
        soak.send(FIRST)
        return soak.growth(REQUESTS)


def test_requests_leave_nothing_behind(server: Server) -> None:
    assert growth(server) < MOST


def test_a_leak_of_1_kb_a_request_is_noticed() -> None:
    options = ("serve", "--host", "127.0.0.1", "--port", "0", "--log-level", "critical")
    with started("tests.hostile.leaky", options) as leaky:
        assert growth(leaky) > MOST


@pytest.mark.parametrize("kept", [0, LEAK])
def test_a_single_large_allocation_is_no_leak(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0

    def send(self: Soak, count: int) -> None:
        nonlocal sent
        sent += count

    monkeypatch.setattr(Soak, "send", send)
    monkeypatch.setattr(
        "tests.hostile.soak.memory", lambda process: 2**26 * (sent > 3000) + kept * sent
    )
    assert Soak(Server("http://127.0.0.1:1", 1)).growth(6000) == pytest.approx(kept, rel=0.01)
