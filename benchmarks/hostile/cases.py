"""Attacks, each on a fresh server, and the bars that the server has to meet."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from functools import partial

from benchmarks import requests
from benchmarks.bars import Bar
from benchmarks.client import Client
from benchmarks.hostile import crowd
from benchmarks.hostile.normal_client import Seen, leased_bytes, normal_requests
from benchmarks.processes import forget_peak, memory
from benchmarks.requests import large_request
from benchmarks.server import Server, serving, started

_MIB = 2**20
_MB = 10**6
_CLIENTS = 1000
_QUICK = 10  # one client in so many
_WAIT_SECONDS = 2
_BODY = 8 * _MIB
_BUDGET = 1024 * _MIB
_GONE_BODY = 2 * _MIB  # 2 GB in all: fits on any machine
_ROUNDS = 5
_NORMAL = 2000  # requests from which the p99 is taken
_LARGE = 5

_quiet = partial(serving, LOSSD_LOG_LEVEL="critical")


def slow_clients(quick: bool = False) -> list[Bar]:
    """Slow headers and slow bodies: the p99 latency of normal clients beside them."""
    count = _CLIENTS // 2 // (_QUICK if quick else 1)
    normal, attacked = [], []
    with _quiet() as server:
        normal_requests(server, _NORMAL // _QUICK)
        for _ in range(2 if quick else _ROUNDS):
            normal.append(_normal(server, quick))
            with started("benchmarks.hostile.slow_clients", [server.url, str(count), str(count)]):
                attacked.append(_normal(server, quick))
    before, during = (_median_of_worst(each) for each in (normal, attacked))
    what = f"p99 beside {count} + {count} slow sockets"
    note = f"{during * 1000:.2f} ms, {before * 1000:.2f} without"
    refused = sum(seen.refused for seen in attacked)
    return [
        Bar(f"{what}, of it without", 1.5, 1.1, during / before, note, True),
        Bar("normal requests that are refused meanwhile", 0, 0, refused, "", True, ".0f"),
    ]


def _normal(server: Server, quick: bool) -> Seen:
    return normal_requests(server, _NORMAL // (_QUICK if quick else 1))


def _median_of_worst(rounds: list[Seen]) -> float:
    return statistics.median(seen.quantile(0.99) for seen in rounds)


def more_than_fits(quick: bool = False) -> list[Bar]:
    """Connections that each declare 8 MiB, together eight times the budget."""
    scale = _QUICK if quick else 1
    count, budget = _CLIENTS // scale, _BUDGET // scale
    settings = {"LOSSD_MEMORY_BYTES": budget, "LOSSD_MEMORY_WAIT_SECONDS": _WAIT_SECONDS}
    with _quiet(**{name: str(value) for name, value in settings.items()}) as server:
        normal_requests(server, _NORMAL // _QUICK)
        forget_peak(server.process)
        base = memory(server.process)

        async def all_others_are_answered(held: crowd.Held) -> None:
            patience = time.monotonic() + 10 * _WAIT_SECONDS
            while time.monotonic() < patience:
                await asyncio.sleep(0.1)
                holding = await asyncio.to_thread(leased_bytes, server) // _BODY
                if holding > 0 and held.answered + holding >= count:
                    return

        held = asyncio.run(crowd.hold(server.address, count, _BODY, all_others_are_answered))
        grown = memory(server.process, "VmHWM") - base
    others = sum(each for status, each in held.statuses.items() if status not in (400, 503))
    note = f"budget {budget // _MIB}, {held.statuses[503]} of them refused"
    what = f"{count} connections of 8 MiB"
    most = budget / _MIB + 64
    return [
        Bar(f"{what}: RSS above idle, MiB", most, most, grown / _MIB, note, True, ".0f"),
        Bar("of them reset, or with another status", 0, 0, held.resets + others, "", True, ".0f"),
        Bar("of them 503 without Retry-After", 0, 0, held.silent, "", True, ".0f"),
    ]


def gone(quick: bool = False) -> list[Bar]:
    """Clients that disconnect in mid-body, all at once: no lease is left."""
    count = _CLIENTS // (_QUICK if quick else 1)
    with _quiet() as server:
        asyncio.run(crowd.vanish(server.address, count, _GONE_BODY))
        time.sleep(1)
        left = leased_bytes(server)
    what = f"leased 1 s after {count} went in mid-body, bytes"
    return [Bar(what, 0, 0, left, "", True, ".0f")]


def beside_a_large_one(quick: bool = False) -> list[Bar]:
    """Small requests while 1 GB is received and computed: their median latency."""
    request, _ = large_request(quick)
    running = threading.Event()
    small: list[float] = []
    with _quiet() as server:
        normal_requests(server, _NORMAL // _QUICK)

        def send() -> None:
            try:
                with Client(server) as client:
                    for _ in range(_LARGE):
                        requests.v2_loss(client.exchange(request))
            finally:
                running.clear()

        sender = threading.Thread(target=send)
        running.set()
        sender.start()
        while running.is_set():
            small += normal_requests(server, 10).seconds
        sender.join()
    note = f"{len(small)} of them, the slowest {max(small) * 1000:.1f} ms"
    latency = statistics.median(small) * 1000
    return [Bar("4x5 beside a 1 GB request, median ms", 50, 50, latency, note, True, ".1f")]
