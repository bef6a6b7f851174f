"""Slow clients are cut off, and those that merely send much are not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.protocol import Limits
from service.protocol.deadlines import Pace, Watch
from tests.service.protocol.apps import Echo, answer
from tests.service.protocol.messages import Answers, chunked, request
from tests.service.protocol.transport import Wire, problem, settle

SLOW = "urn:lossd:problem:too-slow"


async def test_a_connection_that_never_speaks_is_closed() -> None:
    wire = Wire(Echo())
    await wire.wait(9)
    assert wire.open
    await wire.wait(2)
    assert wire.lost
    assert not wire.sent


@pytest.mark.parametrize(
    "start", [b"G", b"GET / HTTP/1.1\r\nHost: a", b"\r\n", request(line="GET / HTTP/1.1")[:-1]]
)
@pytest.mark.parametrize("before", [b"", request(line="GET / HTTP/1.1")], ids=["first", "second"])
async def test_half_a_header_is_a_408(start: bytes, before: bytes) -> None:
    wire = Wire(Echo(), timeout_keep_alive=60)
    if before:
        await wire.send(before)
        await wire.wait(30)
        assert Answers(bytes(wire.sent)).statuses == [200]
    await wire.send(start)
    await wire.wait(9)
    assert wire.open
    await wire.wait(2)
    assert problem(wire)["type"] == SLOW


async def test_headers_that_trickle_in_do_not_last() -> None:
    wire = Wire(Echo())
    await wire.send(b"GET / HTTP/1.1\r\n")
    for second in range(20):
        if wire.open:
            assert second < 12
            await wire.send(b"X: y\r\n")
            await wire.wait(1)
    assert problem(wire)["type"] == SLOW


async def test_an_idle_connection_is_kept_for_as_long_as_uvicorn_is_told() -> None:
    wire = Wire(Echo(), timeout_keep_alive=60)
    for _ in range(3):
        await wire.send(request(line="GET / HTTP/1.1"))
        await wire.wait(55)
    assert wire.open
    await wire.wait(6)
    assert wire.lost


async def test_a_header_that_waits_for_an_answer_has_time() -> None:
    finish = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await finish.wait()
        await answer(send)

    wire = Wire(app)
    await wire.send(request(line="GET / HTTP/1.1") + b"GET / HT")
    await wire.wait(60)
    finish.set()
    await wire.send(b"TP/1.1\r\nHost: a\r\n\r\n")
    assert Answers(bytes(wire.sent)).statuses == [200, 200]


BODIES = {
    "small": request("Content-Length: 60000"),
    "large": request("Content-Length: 60000000"),
    "chunked": request("Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("head", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("trickle", [b"", b"5\r\nabcde\r\n"], ids=["silent", "trickling"])
async def test_a_body_that_stalls_is_a_408(head: bytes, trickle: bytes) -> None:
    echo = Echo()
    wire = Wire(echo)
    await wire.send(head)
    for _ in range(9):
        await wire.send(trickle)
        await wire.wait(1)
    assert wire.open
    await wire.wait(3)
    assert problem(wire)["type"] == SLOW
    assert echo.gone == 1


async def test_a_fast_beginning_buys_no_time() -> None:
    wire = Wire(Echo())
    await wire.send(BODIES["large"] + bytes(50_000_000))
    while wire.held:
        await settle()
    await wire.wait(12)
    assert problem(wire)["type"] == SLOW


async def test_a_body_at_the_right_pace_may_take_for_ever() -> None:
    echo = Echo()
    wire = Wire(echo)
    await wire.send(request(f"Content-Length: {600 * 70_000}"))
    for _ in range(599):
        await wire.send(bytes(70_000))
        await wire.wait(1)
    # A pause shorter than the grace is made good by what comes afterwards.
    await wire.wait(8)
    await wire.send(bytes(70_000))
    while not echo.bodies:
        await settle()
    assert Answers(bytes(wire.sent)).statuses == [200]


@pytest.mark.parametrize("head", BODIES.values(), ids=BODIES)
async def test_an_application_that_does_not_ask_costs_the_client_no_time(head: bytes) -> None:
    ask = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ask.wait()
        while (await receive())["more_body"]:
            pass
        await answer(send)

    body = chunked([bytes(100_000)] * 600) if b"chunked" in head else bytes(60_000_000)
    if b": 60000\r" in head:
        body = body[:60_000]
    wire = Wire(app)
    await wire.send(head + body)
    await wire.wait(300)
    ask.set()
    while not wire.sent:
        await settle()
    assert Answers(bytes(wire.sent)).statuses == [200]


async def test_an_application_that_has_no_room_for_more_costs_the_client_no_time() -> None:
    room = asyncio.Semaphore(0)
    memory = bytearray(100_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        landing = scope["extensions"]["lossd.landing"]
        for _ in range(6):
            await room.acquire()
            await landing.receive_into(memoryview(memory), lambda filled: None)
        await answer(send)

    wire = Wire(app)
    await wire.send(request(body=bytes(600_000)))
    for _ in range(6):
        await wire.wait(100)
        assert wire.open
        room.release()
        await settle()
    while not wire.sent:
        await settle()
    assert Answers(bytes(wire.sent)).statuses == [200]


async def test_an_answer_that_nobody_reads_is_cut_off() -> None:
    wire = Wire(Echo())
    wire.reads = False
    await wire.send(request(body=bytes(50_000)))
    await wire.wait(29)
    assert not wire.lost
    await wire.wait(3)
    assert wire.aborted
    assert wire.lost


async def test_an_answer_read_at_the_right_pace_may_take_for_ever() -> None:
    wire = Wire(Echo())
    wire.reads = False
    await wire.send(request(body=bytes(50_000)) * 2)
    wire._unread = 100 * 70_000  # as if it were that long
    for _ in range(99):
        await wire.take(70_000)
        await wire.wait(1)
    assert not wire.lost
    await wire.hang_up()


async def test_a_connection_that_is_closed_does_not_wait_for_a_reader() -> None:
    wire = Wire(Echo())
    wire.reads = False
    await wire.send(request("Connection: close", body=bytes(50_000)))
    await settle()
    assert not wire.lost
    await wire.wait(32)
    assert wire.aborted
    assert wire.lost


@pytest.mark.parametrize("sends", [True, False])
async def test_who_goes_on_sending_after_a_refusal_is_listened_to_for_a_while(sends: bool) -> None:
    limits = Limits(linger_bytes=10**6)
    wire = Wire(Echo(), limits)
    await wire.send(b"nonsense")
    assert wire.ended
    if sends:
        await wire.send(bytes(900_000))
        assert not wire.lost
        await wire.send(bytes(200_000))
        assert wire.read <= 1_100_008
    else:
        await wire.wait(4)
        assert not wire.lost
        await wire.wait(2)
    assert wire.lost


async def test_one_timer_looks_at_all_and_stops_with_the_last() -> None:
    class Seen:
        count = 0

        def look(self, now: float) -> None:
            self.count += 1

    watch = Watch(asyncio.get_running_loop(), 0.001)
    seen = [Seen() for _ in range(1000)]
    for one in seen:
        watch.add(one)
    while not all(one.count > 1 for one in seen):
        await asyncio.sleep(0.001)
    for one in seen:
        watch.discard(one)
    counts = [one.count for one in seen]
    await asyncio.sleep(0.005)
    assert [one.count for one in seen] == counts


def test_patience_is_time_and_comes_back_with_bytes() -> None:
    pace = Pace(bytes_per_second=100, grace=10)
    assert not pace.behind("a", 0, now=0)
    assert not pace.behind("a", 0, now=10)
    assert pace.behind("a", 0, now=10.1)
    assert not pace.behind("b", 0, now=20)
    assert not pace.behind("b", 500, now=30)
    assert not pace.behind("b", 500, now=35)
    assert pace.behind("b", 500, now=35.1)
    assert not pace.behind("c", 10**9, now=40)
    pace.rest()
    assert not pace.behind("c", 10**9, now=100)
    assert not pace.behind("c", 10**9, now=110)
    assert pace.behind("c", 10**9, now=110.1)
