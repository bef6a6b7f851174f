"""SIGTERM is known at once, and what the server then cancels is answered."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import MutableMapping
from functools import partial
from types import FrameType
from typing import Any

import pytest

from service.app import create_app
from service.compute.lane import Lane
from service.errors import Overloaded
from service.process.shutdown import Farewell, on_sigterm
from service.settings import Settings
from tests.service import wire
from tests.service.conftest import running, wait_until_ready


@pytest.fixture
def terminations(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The SIGTERMs that a server, which this test stands in for, has been told of."""
    numbers: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        numbers.append(number)

    before = signal.signal(signal.SIGTERM, handle)
    yield numbers
    assert signal.getsignal(signal.SIGTERM) is handle
    signal.signal(signal.SIGTERM, before)


def test_it_is_not_ready_from_then_on_but_answers(terminations: list[int]) -> None:
    with running(create_app(warm=lambda: None)) as client:
        wait_until_ready(client)
        assert client.get("/v2/health/ready").status_code == 200
        signal.raise_signal(signal.SIGTERM)
        for path in ("/readyz", "/v2/health/ready", "/v2/models/softmax/ready"):
            problem = wire.problem_of(client.get(path), 503)
            assert problem["type"] == "urn:lossd:problem:stopping"
        assert client.get("/healthz").status_code == 200
        assert client.send("/v1/softmax", b'{"logits": [[1, 2]]}', wire.JSON).status_code == 200
    assert terminations == [signal.SIGTERM]


def test_what_was_accepted_waits_for_its_turn_however_long_the_queue(
    terminations: list[int],
) -> None:
    app = create_app(Settings(lane_queue=1), warm=lambda: None)
    with running(app) as client:
        wait_until_ready(client)
        service = app.state.service

        async def refused(lane: Lane) -> int:
            go_on = threading.Event()
            calls = [asyncio.create_task(lane.call(partial(_wait, go_on))) for _ in range(9)]
            await asyncio.sleep(0.01)
            go_on.set()
            results = await asyncio.gather(*calls, return_exceptions=True)
            return sum(isinstance(result, Overloaded) for result in results)

        for lane in (service.compute, service.transcode):
            assert client.runner.run(refused(lane)) > 0
        signal.raise_signal(signal.SIGTERM)
        for lane in (service.compute, service.transcode):
            assert client.runner.run(refused(lane)) == 0


def test_one_of_several_workers_that_is_told_early_does_not_wait() -> None:
    compiled = threading.Event()
    app = create_app(Settings(workers=2), warm=lambda: _wait(compiled))
    app.state.stopping.set()
    with running(app) as client:
        assert wire.problem_of(client.get("/readyz"), 503)["type"].endswith(":stopping")
        compiled.set()


def _wait(event: threading.Event) -> None:
    event.wait(60)


def test_one_of_several_workers_is_ready_once_it_has_started() -> None:
    with running(create_app(Settings(workers=2), warm=lambda: None)) as client:
        assert client.get("/readyz").status_code == 200


def test_only_a_server_with_a_handler_is_listened_to() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with on_sigterm(lambda: None):
        assert signal.getsignal(signal.SIGTERM) is before


def cancelled(*already: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """What is sent in all by an application that is cancelled once it has sent ``already``."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        if sent and message["type"] == "http.response.start":
            raise RuntimeError("as uvicorn does")
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError

    async def app(*_: Any) -> None:
        for message in already:
            await send(message)
        await asyncio.Event().wait()

    async def run() -> None:
        task = asyncio.create_task(Farewell(app)({"type": "http"}, receive, send))
        await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(run())
    return sent


def test_what_is_cancelled_is_a_503() -> None:
    start, body = cancelled()
    assert start["status"] == 503
    assert json.loads(body["body"])["type"] == "urn:lossd:problem:stopping"


def test_an_answer_that_has_begun_stays_the_only_one() -> None:
    begun = {"type": "http.response.start", "status": 200, "headers": []}
    assert cancelled(begun) == [begun]


def test_what_is_no_request_is_cancelled() -> None:
    async def app(*_: Any) -> Any:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Farewell(app)({"type": "lifespan"}, app, app))
