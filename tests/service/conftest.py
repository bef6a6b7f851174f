"""Two ways to a service: in this process for breadth, and over a socket for the rest."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI

from service.app import create_app

ROOT = Path(__file__).parents[2]
# A kernel that a test is the first to need may take long, on such a machine.
os.environ.setdefault("LOSSD_COMPILE_SECONDS", "600")
READY_WITHIN = 180  # seconds, on a machine that is slow, busy, and has an empty Numba cache

_failed: list[int] = []


class Client:
    """A blocking HTTP client of an application that runs in this process."""

    def __init__(self, runner: asyncio.Runner, client: httpx.AsyncClient) -> None:
        self.runner = runner
        self._client = client

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.runner.run(self._client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def send(self, path: str, body: bytes, media_type: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.post(path, content=body, headers={"content-type": media_type, **named})


@asynccontextmanager
async def _started(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    # Exceptions that the application raises again once they are answered are the server's to log.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://lossd") as client,
    ):
        yield client


async def _ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(READY_WITHIN):
        while (await client.get("/readyz")).status_code != 200:
            assert not _failed, "the warm-up failed: see the log"
            await asyncio.sleep(0.01)


@asynccontextmanager
async def ready(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``app``, which runs on this event loop, once ``/readyz`` answers 200."""
    async with _started(app) as client:
        await _ready(client)
        yield client


@contextmanager
def running(app: FastAPI) -> Iterator[Client]:
    """``app`` from its start to its end, with a client of it."""
    with asyncio.Runner() as runner:
        started = _started(app)
        client = Client(runner, runner.run(started.__aenter__()))
        try:
            yield client
        finally:
            runner.run(started.__aexit__(None, None, None))


def wait_until_ready(client: Client) -> None:
    """Return once ``/readyz`` answers 200."""
    client.runner.run(_ready(client._client))


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """A client of the application with its default settings, ready."""
    # By default a failed warm-up ends the process, which here would be that of the tests.
    with running(create_app(fail=_failed.append)) as started:
        wait_until_ready(started)
        yield started


@contextmanager
def serving(*prefix: str, **environment: str) -> Iterator[httpx.URL]:
    """The URL of ``lossd serve`` as a process of its own, ready, on a free port of the loopback.

    ``prefix`` is the command that runs it, if one is to.
    """
    command = [*prefix, sys.executable, "-m", "service.cli", "serve", "--port", "0"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    # A process that hangs closes no pipe: end it, so that the reading below ends too.
    timer = threading.Timer(READY_WITHIN, process.kill)
    timer.start()
    try:
        output = ""
        for line in process.stdout:
            output += line
            found = re.search(r"ready on (http://\S+:\d+)", output)
            if found:
                break
        else:
            pytest.fail(f"lossd serve ended with {process.wait()} before it was ready: {output}")
        timer.cancel()
        yield httpx.URL(found[1])
    finally:
        timer.cancel()
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
            process.stdout.close()


@pytest.fixture(scope="session")
def live_server() -> Iterator[httpx.URL]:
    """A server for everything that one server can show."""
    with serving(LOSSD_MAX_BODY_BYTES=str(2**24)) as url:
        yield url
