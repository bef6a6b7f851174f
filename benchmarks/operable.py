"""Cost of metrics and logs to small requests: ``python -m benchmarks operable``.

Metrics cannot be switched off, so the server without them is another commit's, from a checkout that
``--against`` names: it runs beside this one's, and requests go to them in turns. Its log is at
``warning``, so that it writes no line a request. ``NUMBA_CACHE_DIR`` keeps the kernels of both.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import NamedTuple

from benchmarks import requests
from benchmarks.bars import Bar, bars_table
from benchmarks.client import Client, Request
from benchmarks.machine import machine
from benchmarks.problems import Array, Case, Data, data_for
from benchmarks.server import Server, started

ROUNDS = 75
_REQUESTS = 100  # a turn: short ones, since the machine's speed drifts
_TOLERANCE = 1e-5  # of a loss in float32
# Of the time without: the bar of 3 %, and half of it.
_BAR, _GOAL = 1.03, 1.015

# Environment of each server, by the name in the table.
_SERVERS = {
    "metrics": {"LOSSD_LOG_LEVEL": "warning"},
    "metrics, log of requests": {"LOSSD_ACCESS_LOG": "true", "LOSSD_LOG_FORMAT": "json"},
}
_BEFORE = "before"


@contextmanager
def _servers(against: str | None) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        options = ("serve", "--port", "0", "--host", "127.0.0.1")
        made = {
            name: stack.enter_context(started("service.cli", options, **environment))
            for name, environment in _SERVERS.items()
        }
        if against is not None:
            root = str(Path(against).resolve())
            quiet = {"LOSSD_LOG_LEVEL": "warning"}
            made[_BEFORE] = stack.enter_context(started("service.cli", options, root, **quiet))
        _put_apart(made.values())
        yield made


def _put_apart(servers: Iterable[Server]) -> None:
    """Have this process run on one processor, and all servers on another (Linux).

    Else the scheduler puts some servers beside the client, where a request takes a third less.
    """
    mine, *others = sorted(os.sched_getaffinity(0))
    for server in servers:
        for task in Path(f"/proc/{server.process}/task").iterdir():
            os.sched_setaffinity(int(task.name), {others[0] if others else mine})
    os.sched_setaffinity(0, {mine})


def main(against: str | None, rounds: int) -> int:
    """Print what each server takes, and how much more than the one before; returns the status."""
    few, more = data_for(Case((4, 5))), data_for(Case((64, 1000)))
    cases = {
        "4x5 JSON": (few, requests.json_text(_tensors(few), requests.V1), requests.json_loss),
        "4x5 V2": (few, requests.v2(_tensors(few)).joined, requests.v2_loss),
        "64x1000 JSON": (more, requests.json_text(_tensors(more), requests.V1), requests.json_loss),
    }
    bars: list[Bar] = []
    with _servers(against) as servers:
        for name, (data, request, loss) in cases.items():
            turns: dict[str, list[Turn]] = {each: [] for each in servers}
            with ExitStack() as stack:
                clients = {
                    each: stack.enter_context(Client(server)) for each, server in servers.items()
                }
                for client in clients.values():
                    error = max(data.loss_error(loss(client.exchange(request))) for _ in range(200))
                    if not error <= _TOLERANCE:
                        raise RuntimeError(f"the loss is off by {error:.1e}")
                for number in range(rounds):
                    # Each server is first as often as any other.
                    for each in sorted(servers, reverse=bool(number % 2)):
                        turns[each].append(_turn(clients[each], servers[each], request))
            bars += _compared(name, turns)
    print(f"{machine()}; {date.today().isoformat()}; medians of {rounds} interleaved rounds\n")
    print("\n".join(bars_table(bars)))
    return int(any(bar.verdict == "MISSED" for bar in bars))


def _tensors(data: Data) -> dict[str, Array]:
    return {"labels": data.labels, "logits": data.logits}


class Turn(NamedTuple):
    """Microseconds of a request: until its answer is there, and on a processor in the server."""

    wall: float
    cpu: float


def _turn(client: Client, server: Server, request: Request) -> Turn:
    seconds = []
    before = _cpu_nanoseconds(server.process)
    for _ in range(_REQUESTS):
        started = time.perf_counter()
        client.exchange(request)
        seconds.append(time.perf_counter() - started)
    spent = _cpu_nanoseconds(server.process) - before
    return Turn(statistics.median(seconds) * 1e6, spent / _REQUESTS / 1e3)


def _cpu_nanoseconds(process: int) -> int:
    """Nanoseconds that all threads of a process were running (Linux)."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def _compared(what: str, turns: Mapping[str, list[Turn]]) -> list[Bar]:
    """Print the times of a request by server, and return the bars: medians of rounds' ratios."""
    bars = []
    for name, ours in turns.items():
        wall, cpu = (statistics.median(column) for column in zip(*ours, strict=True))
        print(f"{what}, {name:<26} {wall:7.1f} us, of which {cpu:6.1f} us of CPU", flush=True)
        before = turns.get(_BEFORE)
        if before is None or name == _BEFORE:
            continue
        for index, of in enumerate(("time", "CPU")):
            pairs = zip(ours, before, strict=True)
            ratio = statistics.median(mine[index] / theirs[index] for mine, theirs in pairs)
            bars.append(_bar(f"{what} {of}, {name}", ratio))
    return bars


def _bar(what: str, ratio: float) -> Bar:
    return Bar(what, _BAR, _GOAL, ratio, "", at_most=True, form=".3f")
