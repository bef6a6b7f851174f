"""The most work that a byte can make, and a request below 1 MB, in each format and coding."""

from __future__ import annotations

import time
from contextlib import suppress

from benchmarks.fire.worst import SIZE, Attack, head_attacks, json_attacks
from benchmarks.fire.worst_binary import binary_attacks
from benchmarks.fire.worst_v2 import v2_attacks
from benchmarks.kernel.bars import Bar
from benchmarks.server import Server, serving
from benchmarks.wire.client import Client, Request, get
from benchmarks.wire.measure import cpu_seconds

# What a byte and a request may cost, and what they should.
_MICROSECONDS = (2.0, 0.5)
_MILLISECONDS = (100.0, 50.0)
_ROUNDS = 5
_SETTLED_SECONDS = 0.02  # after an answer, until its request is forgotten


def attacks() -> list[Attack]:
    """All of them. Their bodies are made when asked for."""
    return [*json_attacks(), *v2_attacks(), *binary_attacks(), *head_attacks()]


def work(quick: bool = False) -> list[Bar]:
    """Two lines for each format and coding: the worst of its attacks.

    A connection and a request that asks for nothing cost some half a millisecond, which is taken
    off.
    """
    costs: dict[str, list[tuple[float, int, str]]] = {}
    with serving(LOSSD_LOG_LEVEL="critical") as server:
        rounds = 1 if quick else _ROUNDS
        nothing = _seconds(server, get("/healthz").joined, 4 * _ROUNDS)
        for attack in attacks():
            request = attack.make()
            seconds = max(0.0, _seconds(server, request, rounds) - nothing)
            costs.setdefault(attack.form, []).append((seconds, len(request.head), attack.name))
    return [bar for form, found in costs.items() for bar in _bars(form, found)]


def _seconds(server: Server, request: Request, rounds: int) -> float:
    """Of all the server's threads, for the request on a connection of its own: the least."""
    taken = []
    for _ in range(rounds):
        before = cpu_seconds(server.process)
        with suppress(OSError), Client(server) as client:
            client.exchange(request)
        time.sleep(_SETTLED_SECONDS)
        taken.append(cpu_seconds(server.process) - before)
    return min(taken)


def _bars(form: str, found: list[tuple[float, int, str]]) -> list[Bar]:
    byte, of_byte = max((seconds / size * 1e6, name) for seconds, size, name in found)
    whole, of_whole = max((seconds * 1e3, name) for seconds, size, name in found if size < 2 * SIZE)
    return [
        Bar(f"{form}: CPU for a byte, us", *_MICROSECONDS, byte, of_byte, True, ".3f"),
        Bar(f"{form}: CPU for a request, ms", *_MILLISECONDS, whole, of_whole, True, ".1f"),
    ]
