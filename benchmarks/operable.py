"""Cost of metrics and logs to requests of 4 x 5 logits: ``python -m benchmarks operable``.

Metrics cannot be switched off, so the server without them is another commit's, from a checkout that
``--against`` names: it runs beside this one's, and requests go to them in turns. Its log is at
``warning``, so that it writes no line a request. ``NUMBA_CACHE_DIR`` keeps the kernels of both.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

from benchmarks import requests
from benchmarks.bars import Bar, bars_table
from benchmarks.client import Answer, Client, Request
from benchmarks.http.measure import Contestant, Outcome, interleaved
from benchmarks.http.saturation import Crowd
from benchmarks.machine import machine
from benchmarks.problems import Case, data_for
from benchmarks.server import Server, started

ROUNDS = 15
_CONNECTIONS, _REQUESTS = 32, 1600
_CASE = Case((4, 5))
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
        yield made


def main(against: str | None, rounds: int) -> int:
    """Print what each server takes, and how much more than the one before; returns the status."""
    data = data_for(_CASE)
    tensors = {"labels": data.labels, "logits": data.logits}
    cases = {
        "JSON": (requests.json_text(tensors, requests.V1), requests.json_loss),
        "V2": (requests.v2(tensors).joined, requests.v2_loss),
    }
    bars: list[Bar] = []
    with _servers(against) as servers, ExitStack() as stack:
        for name, (request, loss) in cases.items():

            def error(answer: Answer, loss=loss) -> float:  # type: ignore[no-untyped-def]
                return data.loss_error(loss(answer))

            alone = {each: _one(stack, server, request, error) for each, server in servers.items()}
            crowd = {each: _many(stack, server, request, error) for each, server in servers.items()}
            bars += _compared(f"4x5 {name}, one connection", interleaved(alone, rounds), 1)
            many = f"4x5 {name}, {_CONNECTIONS} connections"
            bars += _compared(many, interleaved(crowd, rounds), _REQUESTS)
    print(f"{machine()}; {date.today().isoformat()}; medians of {rounds} interleaved rounds\n")
    print("\n".join(bars_table(bars)))
    return int(any(bar.verdict == "MISSED" for bar in bars))


def _one(
    stack: ExitStack, server: Server, request: Request, error: Callable[[Answer], float]
) -> Contestant:
    client = stack.enter_context(Client(server))
    return Contestant(lambda: client.exchange(request), error)


def _many(
    stack: ExitStack, server: Server, request: Request, error: Callable[[Answer], float]
) -> Contestant:
    crowd = stack.enter_context(Crowd(server, request, _CONNECTIONS))
    return Contestant(lambda: crowd.exchange(_REQUESTS), error)


def _compared(what: str, outcomes: Mapping[str, Outcome], calls: int) -> list[Bar]:
    """Print the time of a request by server, and return the bars: medians of the rounds' ratios."""
    for name, outcome in outcomes.items():
        if outcome.refused is not None:
            raise RuntimeError(f"{name}: {outcome.refused}")
        print(f"{what}, {name:<26}{outcome.median / calls * 1e6:10.1f} us", flush=True)
    before = outcomes.get(_BEFORE)
    made = []
    for name in _SERVERS:
        ratios = [
            ours / theirs
            for ours, theirs in zip(
                outcomes[name].seconds, before.seconds if before else [], strict=False
            )
        ]
        ratio = statistics.median(ratios) if ratios else math.nan
        made.append(Bar(f"{what}: {name}", _BAR, _GOAL, ratio, "", at_most=True, form=".3f"))
    return made
