"""Requests to an application on this event loop, and what must be left of them: nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from kernels import steps
from kernels.steps import Work
from service.request.body import Incoming
from service.request.operation import Service

PATIENCE = 300  # seconds until a test that hangs fails; the first may have to compile kernels
MIB = 2**20


class Request:
    """One request, its body in pieces: what it was sent, and what befalls it."""

    def __init__(self, app: FastAPI, body: bytes, media_type: str, piece: int = MIB) -> None:
        self.service: Service = app.state.service
        self.sent: list[MutableMapping[str, Any]] = []
        self.received = 0
        self.pieces = [body[at : at + piece] for at in range(0, len(body), piece)]
        self.leaves_at: int | None = None
        self.gone = asyncio.Event()
        self.may_receive: Callable[[int], bool] = lambda index: True
        self._app = app
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/cross_entropy",
            "query_string": b"",
            "headers": [
                (b"content-type", media_type.encode()),
                (b"content-length", str(len(body)).encode()),
            ],
        }

    async def run(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._app(self._scope, self._receive, self._send)

    async def _receive(self) -> MutableMapping[str, Any]:
        await asyncio.sleep(0)
        index = self.received
        if index == self.leaves_at:
            return {"type": "http.disconnect"}
        if index == len(self.pieces):
            await self.gone.wait()
            return {"type": "http.disconnect"}
        while not self.may_receive(index):
            await asyncio.sleep(0.001)
        self.received += 1
        more = index < len(self.pieces) - 1
        return {"type": "http.request", "body": self.pieces[index], "more_body": more}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await asyncio.sleep(0)
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def content(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


@asynccontextmanager
async def nothing_left(service: Service) -> AsyncIterator[None]:
    """At the end nothing is leased, at once, and nobody waits."""
    yield
    assert (service.budget.leased, service.budget.waiting) == (0, 0)
    # What still runs is over after its step.
    await service.transcode.call(lambda: None)
    await service.compute.call(lambda: None)
    assert (service.compute.waiting, service.transcode.waiting) == (0, 0)
    assert service.budget.leased == 0


@contextmanager
def freed_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At the end no body is held, though nothing is collected: leases end before a collection."""
    bodies: weakref.WeakSet[Incoming] = weakref.WeakSet()
    made = Incoming.__init__

    def noting(incoming: Incoming, *arguments: Any) -> None:
        bodies.add(incoming)
        made(incoming, *arguments)

    monkeypatch.setattr(Incoming, "__init__", noting)
    gc.collect()
    gc.disable()
    try:
        yield
        assert not list(bodies)
    finally:
        gc.enable()


class Gate:
    """Work that waits before each step until it is let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken = 0
        self.go_on = threading.Semaphore(0)
        made = steps.cross_entropy

        def gated(*arguments: Any, **options: Any) -> Work:
            work = made(*arguments, **options)
            return work._replace(steps=self._steps(work.steps))

        monkeypatch.setattr(steps, "cross_entropy", gated)

    def _steps(self, steps: Generator[int, None, Any]) -> Generator[int, None, Any]:
        for needed in steps:
            yield needed
            self.taken += 1
            assert self.go_on.acquire(timeout=PATIENCE)
        return {"loss": np.zeros((), np.float32)}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)
