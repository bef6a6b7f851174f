"""Metrics of a server that is full, and of one that stops."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial

import httpx2 as httpx

from benchmarks.server import Server, serving
from tests.service import wire
from tests.service.telemetry.scraping import free_port, value_in

PATIENCE = 60  # seconds until a test that hangs fails
LARGE = 40 * 2**20  # bytes: two of these do not fit the budget, which is the least there is
BUDGET = 64 * 2**20


def upload(server: Server) -> socket.socket:
    """A connection whose request has a large body, none of which comes."""
    connection = socket.create_connection(server.address, timeout=PATIENCE)
    head = (
        "POST /v1/softmax HTTP/1.1\r\nHost: lossd\r\nExpect: 100-continue\r\n"
        f"Content-Type: {wire.SAFETENSORS}\r\nContent-Length: {LARGE}\r\n\r\n"
    )
    connection.sendall(head.encode())
    return connection


def until(metrics: httpx.Client, holds: Callable[[str], bool]) -> str:
    """The metrics, once ``holds`` of them."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = metrics.get("/metrics")
        assert answer.status_code == 200
        if holds(answer.text):
            return answer.text
        time.sleep(0.05)
    raise AssertionError(answer.text)


def test_metrics_are_answered_while_the_memory_is_used_up_and_while_the_server_stops() -> None:
    port = free_port()
    with (
        serving(
            LOSSD_METRICS_PORT=str(port),
            LOSSD_MEMORY_BYTES=str(BUDGET),
            LOSSD_MEMORY_WAIT_SECONDS="600",
            LOSSD_SHUTDOWN_SECONDS="4",
        ) as server,
        httpx.Client(base_url=server.url, trust_env=False) as main,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as alone,
        upload(server),
        upload(server),
    ):

        def waits(text: str, requests: int) -> bool:
            in_flight = value_in(text, "lossd_requests_in_flight") == requests
            return in_flight and value_in(text, "lossd_queue_length", queue="memory") == 1

        for metrics in (main, alone):
            # The scrape of the main port is a request as well.
            text = until(metrics, partial(waits, requests=3 if metrics is main else 2))
            assert value_in(text, "lossd_memory_leased_bytes") >= LARGE
            assert value_in(text, "lossd_memory_budget_bytes") == BUDGET
            assert value_in(text, "lossd_connections") >= 2
            assert value_in(text, "lossd_queue_limit", queue="compute") == 64
        # Kept-alive connections are answered once more; the port for metrics, until the end.
        os.kill(server.process, signal.SIGTERM)
        until(alone, lambda text: value_in(text, "lossd_workers", state="stopping") == 1)
        text = main.get("/metrics").text
        assert value_in(text, "lossd_workers", state="stopping") == 1
        assert value_in(text, "lossd_requests_in_flight") == 3
        alone.get("/metrics")
