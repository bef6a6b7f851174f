"""SIGTERM is known at once, and what was accepted is answered."""

from __future__ import annotations

import asyncio
import signal
import threading
from functools import partial
from types import FrameType
from typing import Any

import pytest

from service.app import create_app
from service.compute.lane import Lane
from service.errors import Overloaded
from service.process.shutdown import on_signal
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
    with on_signal(signal.SIGTERM, lambda: None):
        assert signal.getsignal(signal.SIGTERM) is before
