"""The worst that a request can ask for: how long it holds the event loop, and what it costs in all.

Measured is the time that threads run for, which a loaded machine does not change much; the bodies
are those of ``python -m benchmarks fire --case work``, which says what each costs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from benchmarks.hostile import work
from benchmarks.hostile.costly import Attack
from service.app import create_app
from tests.service.conftest import Client, running, wait_until_ready

LOOP_SECONDS = 0.05
ALL_SECONDS = 0.4  # of all threads; a quarter of it on an idle machine
TRIES = 3
PIECE = 2**16
# Of the connection, not of the application.
OF_SOCKETS = {"chunks of a byte"}


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Client, FastAPI]]:
    app = create_app(fail=lambda status: None)
    with running(app) as client:
        wait_until_ready(client)
        yield client, app


@contextmanager
def longest_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """In its only item, how long the loop's thread ran for the callback that it ran longest for."""
    longest = [0.0]
    run = asyncio.events.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        longest[0] = max(longest[0], time.thread_time() - began)

    with monkeypatch.context() as patched:
        patched.setattr(asyncio.events.Handle, "_run", timed)
        yield longest


async def send(app: FastAPI, request: bytes) -> int:
    """The status of the answer to ``request``, which is all of what goes over a connection."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    method, target, _ = first.decode().split()
    path, _, query = target.partition("?")
    fields = [line.partition(b": ") for line in lines]
    at = 0
    statuses: list[int] = []

    async def receive() -> MutableMapping[str, Any]:
        nonlocal at
        if at > len(body):
            await asyncio.Event().wait()
        piece, at = body[at : at + PIECE], at + PIECE
        at = at if at < len(body) else len(body) + 1
        return {"type": "http.request", "body": piece, "more_body": at <= len(body)}

    async def answered(message: MutableMapping[str, Any]) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower(), value) for name, _, value in fields],
        "scheme": "http",
        "server": ("lossd", 80),
        "client": ("client", 1),
        "root_path": "",
    }
    await app(scope, receive, answered)
    [status] = statuses
    return status


@pytest.mark.parametrize(
    "attack",
    [each for each in work.attacks() if each.name not in OF_SOCKETS],
    ids=lambda attack: f"{attack.form}: {attack.name}",
)
def test_no_request_holds_the_loop_or_costs_much(
    started: tuple[Client, FastAPI], monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    client, app = started
    request = attack.make().head
    for _ in range(TRIES):
        before = time.process_time()
        with longest_step(monkeypatch) as longest:
            status = client.runner.run(send(app, request))
        cost = time.process_time() - before
        assert status in {200, 400, 404, 413, 415, 422, 431}
        if longest[0] < LOOP_SECONDS and cost < ALL_SECONDS:
            return
    raise AssertionError(f"the loop was held for {longest[0]:.3f} s, and {cost:.3f} s in all")
