"""uvicorn's server with its signals, and what waits to be accepted when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from service.cli.server import Server
from service.cli.signals import ENDING, ending_with_success

OTHERS = ("SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2")


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def server(**more: Any) -> Server:
    return Server(uvicorn.Config(app, lifespan="off", log_config=None, **more))


def whole(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    with connection:
        return b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.mark.parametrize("number", ENDING)
def test_every_signal_that_ends_a_process_ends_it_gently(number: signal.Signals) -> None:
    made = server()
    before = signal.getsignal(number)
    signal.signal(number, lambda *_: None)
    try:
        with made.capture_signals():
            signal.raise_signal(number)
            assert made.should_exit
            assert not made.force_exit
            signal.raise_signal(number)
            assert made.force_exit == (number == signal.SIGINT)
    finally:
        signal.signal(number, before)


async def test_a_drain_begins_with_the_first_signal_and_ends_in_time_or_with_the_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for second in (False, True):
        made = Server(uvicorn.Config(app, log_config=None), drain_seconds=20)
        made.config.load()
        made.handle_exit(signal.SIGTERM, None)
        assert not await made.on_tick(0)
        assert (b"connection", b"close") in made.server_state.default_headers
        now[0] += 19.9
        assert not await made.on_tick(1)
        if second:
            made.handle_exit(signal.SIGTERM, None)
        else:
            now[0] += 0.2
        assert await made.on_tick(2)
        assert not made.force_exit


def test_sighup_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        made = server()
        with ending_with_success(), made.capture_signals():
            signal.raise_signal(signal.SIGHUP)
            assert not made.should_exit
            raise LookupError  # for the handlers to be as they were
    except LookupError:
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_before_there_is_a_server_is_a_success(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []

    def end(status: int) -> None:
        done.append(status)
        raise LookupError  # for the handlers to be as they were

    monkeypatch.setattr(os, "_exit", end)
    # A shell ignores SIGINT and SIGQUIT in what it starts in the background.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with suppress(LookupError), ending_with_success() as last:
            last.append(lambda: done.append("last"))
            signal.raise_signal(number)
        assert done == ["last", 0]
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("name", OTHERS)
def test_a_signal_that_means_nothing_ends_nothing(name: str) -> None:
    with suppress(LookupError), ending_with_success():
        signal.raise_signal(getattr(signal, name))
        raise LookupError  # for the handlers to be as they were
    assert signal.getsignal(getattr(signal, name)) is signal.SIG_DFL


async def test_what_waits_to_be_accepted_is_answered() -> None:
    """More than the event loop accepts at a time, and all after the server was told to end."""
    clients = 300
    with socket.create_server(("127.0.0.1", 0), backlog=clients) as bound:
        address = bound.getsockname()
        made = server(timeout_graceful_shutdown=10, timeout_keep_alive=1)
        serving = asyncio.create_task(made.serve([bound]))
        while not made.started:
            await asyncio.sleep(0.01)
        # No turn of the loop lies between these: nothing is accepted meanwhile.
        waiting = [socket.create_connection(address) for _ in range(clients)]
        made.should_exit = True
        for one in waiting:
            one.sendall(b"GET / HTTP/1.1\r\nHost: lossd\r\nConnection: close\r\n\r\n")
        await serving
    answers = [whole(one) for one in waiting]
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
