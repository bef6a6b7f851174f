"""A large body lands where the application wants it, and nothing of anything else."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from service.errors import Disconnected
from tests.service.protocol.apps import BODY, Echo, Lander, answer
from tests.service.protocol.messages import Answers, cuts, request
from tests.service.protocol.transport import Wire, settle

APPS: dict[str, Callable[[], Any]] = {
    "plain": Echo,
    "landing": lambda: Lander(prefix=0),
    "landing after a message": lambda: Lander(prefix=1),
    "landing after some messages": lambda: Lander(prefix=3),
    "landing in steps": lambda: Lander(prefix=0, step=70_001),
    "landing in small steps": lambda: Lander(prefix=1, step=999),
}


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
async def test_any_cut_and_any_way_of_asking_give_the_same_bodies(app: Callable[[], Any]) -> None:
    data = b"".join(
        [
            request(body=BODY),
            request(body=b"small"),
            request(body=BODY[::-1]),
            request(line="GET / HTTP/1.1"),
            request("Content-Length: 65537", body=BODY[:65_537]),
        ]
    )

    for pieces in cuts(data, seed=7):
        wire = Wire(app())
        await wire.send_pieces(pieces)
        while wire.held:
            await settle()
        await settle()
        answers = Answers(bytes(wire.sent))
        assert answers.statuses == [200] * 5
        assert answers.bodies == [BODY, b"small", BODY[::-1], b"", BODY[:65_537]]
        assert wire.open
        assert not any("connection" in fields for fields in answers.headers)


async def test_progress_is_told_up_to_the_end() -> None:
    app = Lander(prefix=0)
    wire = Wire(app)
    data = request(body=BODY)
    await wire.send_pieces(data[at : at + 40_000] for at in range(0, len(data), 40_000))
    assert app.progress == sorted(set(app.progress))
    assert len(app.progress) >= 7
    assert app.progress[-1] == len(BODY)


@pytest.mark.parametrize("size", [0, 1, 65_536])
async def test_small_bodies_come_as_any_server_gives_them(size: int) -> None:
    echo = Echo()
    wire = Wire(echo)
    await wire.send(request(body=bytes(size)))
    assert "extensions" not in echo.scopes[0]
    assert echo.bodies == [bytes(size)]


async def test_a_request_that_waits_holds_next_to_nothing() -> None:
    ask = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ask.wait()
        await Lander(prefix=0)(scope, receive, send)

    wire = Wire(app)
    await wire.send(request(body=BODY))
    assert wire.read <= 2**14
    ask.set()
    await settle()
    assert Answers(bytes(wire.sent)).bodies == [BODY]


async def test_a_large_body_behind_another_request_waits_for_its_turn() -> None:
    ask = asyncio.Event()
    landers = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            landers.append(scope["path"])
            await ask.wait()
        await Lander(prefix=0)(scope, receive, send)

    wire = Wire(app)
    await wire.send(request(line="GET / HTTP/1.1") + request(body=BODY))
    assert landers
    assert wire.read <= 2**14
    ask.set()
    await settle()
    assert Answers(bytes(wire.sent)).bodies == [b"", BODY]


@pytest.mark.parametrize("prefix", [0, 1])
async def test_a_client_is_told_to_continue_once_the_body_is_asked_for(prefix: int) -> None:
    ask = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ask.wait()
        await Lander(prefix)(scope, receive, send)

    wire = Wire(app)
    data = request("Expect: 100-continue", body=BODY)
    head = data[: -len(BODY)]
    await wire.send(head)
    assert not wire.sent
    ask.set()
    await settle()
    assert wire.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(BODY)
    assert wire.sent.count(b"100 Continue") == 1
    assert wire.sent.endswith(BODY)


async def test_more_than_the_body_is_not_landed() -> None:
    refused = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        landing = scope["extensions"]["lossd.landing"]
        for size in (len(BODY) + 1, len(BODY), 1):
            try:
                await landing.receive_into(memoryview(bytearray(size)), lambda filled: None)
            except ValueError:
                refused.append(size)
        await answer(send)

    wire = Wire(app)
    await wire.send(request(body=BODY) + request(body=BODY))
    await settle()
    assert refused == [len(BODY) + 1, 1] * 2
    assert Answers(bytes(wire.sent)).statuses == [200, 200]


async def test_a_client_that_leaves_does_not_keep_what_its_body_was_to_land_in() -> None:
    traces = []

    gc.disable()
    try:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            memory = memoryview(bytearray(len(BODY)))
            traces.append(weakref.ref(memory))
            with suppress(Disconnected):
                await scope["extensions"]["lossd.landing"].receive_into(memory, lambda filled: None)

        wire = Wire(app)
        await wire.send(request(body=BODY)[:-1])
        await wire.hang_up()
        await settle()
        # No collection: that may come long after the next body has.
        assert [trace() for trace in traces] == [None]
    finally:
        gc.enable()
