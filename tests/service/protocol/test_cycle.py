"""Answers on the wire: a header section and the beginning of its body in one write."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.service.protocol.apps import answer
from tests.service.protocol.messages import Answers, request
from tests.service.protocol.transport import Wire

PIECE = 2**18
LENGTH = (b"content-length", b"10")
GET = request(line="GET / HTTP/1.1")


class Counting(Wire):
    """Remembers each write."""

    def __init__(self, app: Any) -> None:
        self.writes: list[bytes] = []
        super().__init__(app)

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))
        super().write(data)


async def writes(
    pieces: Sequence[bytes], headers: Sequence[Any] = (LENGTH,), head: bytes = GET
) -> list[bytes]:
    """Writes of a connection whose application answers with ``pieces``."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [*headers]})
        for left, piece in zip(range(len(pieces) - 1, -1, -1), pieces, strict=True):
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})

    wire = Counting(app)
    await wire.send(head)
    assert wire.open
    return wire.writes


@pytest.mark.parametrize("pieces", [[b"0123456789"], [b"01234", b"56789"], [b"", b"0123456789"]])
async def test_the_header_goes_out_with_the_first_of_the_body(pieces: Sequence[bytes]) -> None:
    first, *others = await writes(pieces)
    assert Answers(first + b"".join(others)).bodies == [b"0123456789"]
    assert first.endswith(b"\r\n\r\n" + pieces[0])
    assert others == pieces[1:]


@pytest.mark.parametrize("size", [PIECE, PIECE + 1, 4 * PIECE, 5 * PIECE - 1])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_goes_out_in_pieces(size: int, chunked: bool) -> None:
    body = random.Random(size).randbytes(size)
    head, *rest = await writes([body], [] if chunked else [(b"content-length", b"%d" % size)])
    assert head.endswith(b"\r\n\r\n")
    pieces = [body[start : start + PIECE] for start in range(0, size, PIECE)]
    if chunked:
        pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
        pieces[-1] += b"0\r\n\r\n"
    assert rest == pieces


async def test_a_large_body_waits_for_the_client_to_read() -> None:
    body = bytes(10 * PIECE)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, body)

    wire = Wire(app)
    wire.reads = False
    await wire.send(GET)
    for _ in range(20):
        before = len(wire.sent)
        await wire.take(2**30)
        assert len(wire.sent) - before <= PIECE
    assert Answers(bytes(wire.sent)).bodies == [body]
    assert wire.open


async def test_chunks_follow_the_header() -> None:
    sent = b"".join(await writes([b"01234", b"56789"], []))
    assert sent.endswith(b"\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n")


async def test_an_answer_to_head_has_no_body() -> None:
    sent = b"".join(await writes([b"0123456789"], head=request(line="HEAD / HTTP/1.1")))
    assert b"content-length: 10\r\n" in sent
    assert sent.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("body", [b"012345678", b"0123456789a"])
async def test_a_body_of_another_length_ends_the_connection(body: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        await send({"type": "http.response.body", "body": body})

    wire = Counting(app)
    await wire.send(GET)
    assert not wire.open
