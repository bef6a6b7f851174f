"""From the start to the end of a process: not ready, ready, or not at all."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading

import pytest

from service.app import create_app
from service.settings import SettingsError
from tests.service import wire
from tests.service.conftest import ROOT, Client, running, wait_until_ready

BODY = b'{"logits": [[1, 2]]}'


def _wait(event: threading.Event) -> None:
    event.wait(60)


def test_until_the_kernels_are_compiled_it_lives_and_is_not_ready() -> None:
    compiled = threading.Event()
    with running(create_app(warm=lambda: _wait(compiled))) as client:
        assert client.get("/healthz").json() == {"status": "live"}
        for response in (client.get("/readyz"), client.send("/v1/softmax", BODY, wire.JSON)):
            assert wire.problem_of(response, 503)["type"] == "urn:lossd:problem:not-ready"
            assert int(response.headers["retry-after"]) >= 1
        compiled.set()
        wait_until_ready(client)
        state = client.get("/readyz").json()
        assert (state["status"], state["leased_bytes"]) == ("ready", 0)
        assert client.send("/v1/softmax", BODY, wire.JSON).status_code == 200


def test_a_failed_warm_up_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    statuses: list[int] = []

    def warm() -> None:
        raise RuntimeError("the worked example came out wrong")

    async def settled(client: Client) -> None:
        async with asyncio.timeout(30):
            while not statuses:
                await asyncio.sleep(0.001)

    with running(create_app(warm=warm, fail=statuses.append)) as client:
        client.runner.run(settled(client))
        assert client.get("/readyz").status_code == 503
    assert statuses == [3]
    assert "the worked example came out wrong" in caplog.text


def test_the_process_of_a_failed_warm_up_exits_with_3() -> None:
    script = """
import sys, uvicorn
from service.app import create_app
def warm():
    raise RuntimeError("no such thing")
uvicorn.run(create_app(warm=warm), fd=int(sys.argv[1]), log_level="critical")
"""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = subprocess.run(
            [sys.executable, "-c", script, str(listening.fileno())],
            cwd=ROOT,
            pass_fds=[listening.fileno()],
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 3
    assert "no such thing" in ended.stderr


def test_a_setting_that_cannot_be_used_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSD_LANE_QUEUE", "none")
    with pytest.raises(SettingsError, match="LOSSD_LANE_QUEUE"):
        create_app()


def test_a_misspelt_setting_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LOSSD_LANE_QUEU", "1")
    with running(create_app(warm=lambda: None)):
        pass
    assert "LOSSD_LANE_QUEU " in caplog.text
