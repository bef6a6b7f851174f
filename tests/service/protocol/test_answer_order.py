"""Answers go out in the order of a connection's requests, and the last one ends it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.protocol import Limits
from tests.service.protocol.apps import Echo, answer
from tests.service.protocol.messages import CHUNKED, Answers, cuts, request
from tests.service.protocol.transport import Wire, exchange, problem, settle


async def test_a_refusal_waits_for_the_answers_before_it() -> None:
    for cut in (0, 5):
        finish = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any, finish: asyncio.Event = finish) -> None:
            await finish.wait()
            await answer(send, scope["path"].encode())

        wire = Wire(app)
        data = request(line="GET /a HTTP/1.1") + request(line="GET /b HTTP/1.1") + b"nonsense"
        await wire.send(data[:cut])
        await wire.send(data[cut:])
        assert not wire.sent
        finish.set()
        await settle()
        answers = Answers(bytes(wire.sent))
        assert answers.statuses == [200, 200, 400]
        assert answers.bodies[:2] == [b"/a", b"/b"]
        problem(wire)


async def test_a_body_that_turns_out_malformed_behind_another_request() -> None:
    finish = asyncio.Event()
    paths = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await finish.wait()
        await answer(send)

    wire = Wire(app)
    await wire.send(request(line="GET /a HTTP/1.1") + request(CHUNKED, body=b"nonsense"))
    finish.set()
    await settle()
    assert Answers(bytes(wire.sent)).statuses == [200, 400]
    assert paths == ["/a"]


async def test_a_body_that_turns_out_malformed_ends_its_request() -> None:
    sent, wire, echo = await exchange([request(CHUNKED, body=b"1\r\na\r\n"), b"nonsense"])
    assert Answers(sent).statuses == [400]
    problem(wire)
    assert echo.gone == 1


async def test_a_client_that_was_not_told_to_continue_may_send_anything_next() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"no", 404)

    for fields in (["Expect: 100-continue", "Content-Length: 30"], [CHUNKED]):
        wire = Wire(app)
        await wire.send(request(*fields))
        await wire.send(request(line="GET / HTTP/1.1"))
        answers = Answers(bytes(wire.sent))
        assert answers.statuses == [404]
        assert answers.headers[0]["connection"] == "close"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (request("Expect: 100-continue", "Content-Length: 3"), True),
        (request("Expect: 100-continue", CHUNKED), True),
        (request("Expect: 100-Continue", "Content-Length: 100000"), True),
        (request("Expect: 100-continue", "Content-Length: 0"), False),
        (request("Expect: 100-continue"), False),
        (request("Expect: something"), False),
        (request("Expect: 100-continue", "Content-Length: 3", line="POST / HTTP/1.0"), False),
        (request("Expect: 100-continue", "Content-Length: 100000", line="PUT / HTTP/1.0"), False),
    ],
)
async def test_only_who_waits_for_it_is_told_to_continue(data: bytes, told: bool) -> None:
    for pieces in cuts(data, seed=9):
        sent, wire, _ = await exchange(pieces)
        assert sent.startswith(b"HTTP/1.1 100 Continue\r\n\r\n") == told
        await wire.hang_up()


async def test_not_every_request_can_be_pipelined() -> None:
    for count, refused in ((50, []), (100, [400])):
        wire = Wire(Echo())
        await wire.send_pieces([request(line="GET / HTTP/1.1") * count, *[b""] * 10])
        answers = Answers(bytes(wire.sent))
        assert answers.statuses == [200] * min(count, 65) + refused
    assert "wait on this connection" in problem(wire)["detail"]


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_shutdown_lets_the_request_end_and_then_the_connection(size: int) -> None:
    data = request(body=b"x" * size)

    _, wire, echo = await exchange([data[:-5]])
    for connection in wire.state.connections:
        connection.shutdown()
    await wire.send(data[-5:] + request(body=b"too late"))
    answers = Answers(bytes(wire.sent))
    assert answers.bodies == echo.bodies == [b"x" * size]
    assert answers.headers[0]["connection"] == "close"
    assert wire.lost


async def test_a_shutdown_closes_what_is_idle() -> None:
    for before in (b"", request(line="GET / HTTP/1.1")):
        _, wire, _ = await exchange([before])
        for connection in tuple(wire.state.connections):
            connection.shutdown()
        await wire.wait(Limits().last_idle_seconds - 0.5)
        assert not wire.lost
        await wire.wait(1)
        assert not wire.state.connections
        assert wire.lost


@pytest.mark.parametrize("begun", [b"", b"POST / HT"], ids=["idle", "begun"])
@pytest.mark.parametrize("earlier", [0, 1, 3])
async def test_a_shutdown_leaves_time_for_a_request_that_is_on_its_way(
    begun: bytes, earlier: int
) -> None:
    """On a new connection or on one that is kept alive: its answer says that it is the last."""
    before = [request(body=b"before")] * earlier
    _, wire, echo = await exchange([*before, begun])
    for connection in tuple(wire.state.connections):
        connection.shutdown()
    await wire.wait(Limits().last_idle_seconds - 0.5)
    assert not wire.lost
    coming = request(body=b"in time")
    assert coming.startswith(begun)
    await wire.send(coming[len(begun) :] + request(body=b"too late"))
    answers = Answers(bytes(wire.sent))
    assert answers.bodies == echo.bodies == [b"before"] * earlier + [b"in time"]
    said = [headers.get("connection") for headers in answers.headers]
    assert said == [None] * earlier + ["close"]
    assert wire.lost


async def test_a_shutdown_keeps_what_an_answer_has_promised() -> None:
    """One that began before did not say that it is the last: so the next one is, and says so."""
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        length = (b"content-length", b"2")
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"b"})

    for asked_again in (True, False):
        go_on.clear()
        wire = Wire(app)
        await wire.send(request(line="GET / HTTP/1.1"))
        [connection] = wire.state.connections
        connection.shutdown()
        await wire.wait(Limits().last_idle_seconds + 0.5)
        assert not wire.lost
        go_on.set()
        await settle()
        assert not wire.lost
        if asked_again:
            await wire.send(request(line="GET / HTTP/1.1"))
            answers = Answers(bytes(wire.sent))
            assert [h.get("connection") for h in answers.headers] == [None, "close"]
        else:
            await wire.wait(Limits().last_idle_seconds + 0.5)
        assert wire.lost
