"""The worst that a request can ask for: how long it holds the event loop, and what it costs in all.

Measured is the time that threads run for, which a loaded machine does not change much; the bodies
are those of ``python -m benchmarks fire --case work``, which says what each costs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from benchmarks.hostile import work
from benchmarks.hostile.costly import Attack
from service.app import create_app
from tests.service.conftest import ready

LOOP_SECONDS = 0.05
ALL_SECONDS = 0.4  # of all threads; a quarter of it on an idle machine
TRIES = 3
PIECE = 2**16
# Of the connection, not of the application.
OF_SOCKETS = {"chunks of a byte"}
GROWN = [
    "1 GB behind its JSON",
    "1 GB of zeros",
    "lists in 64 outputs",
    "members of 64 inputs",
]
REFUSED = {
    400: {
        "JSON": [
            "a deep option",
            "a deep tensor",
            "an option of 1 MB",
            "an option of many keys",
            "labels that are none",
            "labels, the last a word",
            "options of lists",
            "options without end",
            "probabilities, the last a word",
        ],
        "V2 JSON": [
            "an id of 1 MB",
            "bytes that are not UTF-8",
            "lists for the repository",
            "lists in 64 outputs",
            "members of 64 inputs",
        ],
        "npz": ["15,000 members", "members with long names"],
        "safetensors": [
            "400 tensors",
            "a deep header",
            "a header of escapes",
            "a header of lists",
        ],
    },
    404: {"head": ["a path of slashes", "escapes in the path"]},
    413: {
        "V2 gzip": GROWN,
        "V2 deflate": GROWN,
        "npz": ["1 MB of zeros", "256 MB of zeros"],
        "safetensors": ["extents without elements"],
    },
    415: {"head": ["a long Authorization"]},
    422: {
        "JSON": [
            "a list of outputs",
            "an option of escapes",
            "keys of 1 KiB",
            "outputs of 64 KiB",
            "space",
        ],
        "V2 JSON": ["lists in a parameter"],
        "head": [
            "a long option in the address",
            "escapes in the address",
            "options in the address",
        ],
        "safetensors": ["digits for an option", "outputs of 1 MB"],
    },
    431: {"head": ["an answer's codings", "codings without end", "parameters of Content-Type"]},
}


@pytest.fixture(scope="module")
async def app() -> AsyncIterator[FastAPI]:
    made = create_app(fail=lambda status: None)
    async with ready(made):
        yield made


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


def wanted(attack: Attack) -> int:
    """The status of the answer: that of ``REFUSED``, or 200."""
    found = [at for at, forms in REFUSED.items() if attack.name in forms.get(attack.form, ())]
    return found[0] if found else 200


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
async def test_no_request_holds_the_loop_or_costs_much(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    request = attack.make().head
    for _ in range(TRIES):
        before = time.process_time()
        with longest_step(monkeypatch) as longest:
            # A task, so that its first step is a callback of the loop as well.
            status = await asyncio.create_task(send(app, request))
        cost = time.process_time() - before
        assert status == wanted(attack)
        if longest[0] < LOOP_SECONDS and cost < ALL_SECONDS:
            return
    raise AssertionError(f"the loop was held for {longest[0]:.3f} s, and {cost:.3f} s in all")
