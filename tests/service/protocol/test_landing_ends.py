"""A landing that ends early: nobody waits for ever, and nothing is written afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.errors import Disconnected
from tests.service.protocol.apps import BODY, Echo, Lander, answer, gone
from tests.service.protocol.messages import Answers, request
from tests.service.protocol.transport import Wire, settle


@pytest.mark.parametrize("status", [401, 413, 503])
@pytest.mark.parametrize("expects", [[], ["Expect: 100-continue"]], ids=["sending", "expecting"])
async def test_an_answer_before_the_body_closes_without_reading_it(
    status: int, expects: list[str]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"no", status)

    wire = Wire(app)
    head = request(*expects, "Content-Length: 1000000000")
    await wire.send(head)
    answers = Answers(bytes(wire.sent))
    assert answers.statuses == [status]
    assert answers.headers[0]["connection"] == "close"
    assert wire.ended
    if not expects:
        await wire.send(bytes(10_000_000))
        assert not wire.held
        assert not wire.lost
        await wire.send(bytes(70_000_000))
        assert wire.read < 2**26 + 2**17
    else:
        await wire.hang_up()
    await settle()
    assert wire.lost


async def test_a_client_that_goes_away_ends_the_landing() -> None:
    for sent in (0, 1, 100_000, len(BODY) - 1):
        for error in (None, ConnectionResetError()):
            app = Lander(prefix=0)
            wire = Wire(app)
            data = request(body=BODY)
            await wire.send(data[: len(data) - len(BODY) + sent])
            await wire.hang_up(error)
            assert isinstance(app.errors[0], Disconnected)
            assert not wire.state.connections
            assert not wire.state.tasks


async def test_memory_that_was_taken_back_is_never_written() -> None:
    memory = bytearray(len(BODY))
    landed = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        landing = scope["extensions"]["lossd.landing"]
        task = asyncio.ensure_future(landing.receive_into(memoryview(memory), print))
        await landed.wait()
        await gone(task)
        await answer(send, b"enough", 503)

    wire = Wire(app)
    data = request(body=BODY)
    await wire.send(data[:100_000])
    assert any(memory)
    landed.set()
    await settle()
    memory[:] = bytes(len(memory))
    await wire.send(data[100_000:])
    assert not any(memory)
    assert Answers(bytes(wire.sent)).statuses == [503]
    assert wire.ended


async def test_a_cancelled_landing_ends_at_once_and_another_goes_on_from_there() -> None:
    memory = bytearray(len(BODY))
    tasks: list[asyncio.Task[None]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if "extensions" not in scope:
            return await answer(send, b"next")
        landing = scope["extensions"]["lossd.landing"]
        work = landing.receive_into(memoryview(memory), lambda filled: None)
        tasks.append(asyncio.ensure_future(work))
        await asyncio.wait(tasks)
        again = bytearray(len(BODY))
        await landing.receive_into(memoryview(again), lambda filled: None)
        await answer(send, bytes(again))

    wire = Wire(app)
    data = request(body=BODY)
    await wire.send(data[: -len(BODY)])
    tasks[0].cancel()
    # These come before the task has learned that it is cancelled.
    wire.push(BODY[:50_000])
    assert not any(memory)
    await wire.send(BODY[50_000:] + request(body=b"next"))
    await settle()
    assert Answers(bytes(wire.sent)).bodies == [BODY, b"next"]


async def test_who_watches_for_the_client_takes_nothing_of_the_body() -> None:
    messages: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        landing = scope["extensions"]["lossd.landing"]
        memory = bytearray(len(BODY))
        view = memoryview(memory)
        await landing.receive_into(view[:50_000], lambda filled: None)

        async def watch() -> None:
            while not messages or messages[-1]["type"] == "http.request":
                messages.append(await receive())

        watcher = asyncio.ensure_future(watch())
        for start in range(50_000, len(BODY), 50_000):
            await settle()
            await landing.receive_into(view[start : start + 50_000], lambda filled: None)
        await answer(send, bytes(memory))
        await settle()
        await gone(watcher)

    wire = Wire(app)
    await wire.send(request(body=BODY))
    for _ in range(20):
        await settle()
    assert Answers(bytes(wire.sent)).bodies == [BODY]
    assert {message["type"] for message in messages} == {"http.disconnect"}


async def test_the_last_request_of_a_connection_is_its_last() -> None:
    for app in (Lander(0), Lander(1), Echo()):
        wire = Wire(app)
        await wire.send(request("Connection: close", body=BODY) + request(body=b"more"))
        await settle()
        assert Answers(bytes(wire.sent)).bodies == [BODY]
        assert wire.lost


async def test_an_application_that_fails_in_mid_body_ends_the_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("a bug")

    wire = Wire(app)
    await wire.send(request(body=BODY))
    answers = Answers(bytes(wire.sent))
    assert answers.statuses == [500]
    assert answers.headers[0]["connection"] == "close"
    assert wire.ended
