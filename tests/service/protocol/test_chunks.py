"""A chunked body is read for its data."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.protocol.apps import Echo, answer
from tests.service.protocol.messages import CHUNKED, Answers, chunked, request
from tests.service.protocol.transport import Wire, exchange, settle


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (chunked([b"x" * 6] * 65_535), 200),
        (chunked([b"x" * 6] * 66_000), 400),
        (chunked([b"x" * 8192] * 20), 200),
        (chunked([b"x"] * 10, b";" + b"y" * 20), 200),
        (chunked([b"x"] * 10, b";" + b"y" * 20_000), 400),
        (chunked([b"x"], trailers=b"X: y\r\n"), 200),
        (chunked([b"x"], trailers=b"X: " + b"y" * 2**17), 400),
    ],
    ids=["many", "too many", "large", "extended", "padded", "trailer", "long trailer"],
)
async def test_chunks_are_for_data(body: bytes, status: int) -> None:
    sent, _, _ = await exchange([request(CHUNKED, body=body)])
    assert Answers(sent).statuses == [status]


async def test_many_large_chunks_are_a_large_body() -> None:
    data = chunked([b"x" * 1100] * 70_000)

    sizes = []

    async def count(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            sizes.append(len(message["body"]))
        await answer(send)

    wire = Wire(count)
    await wire.send(request(CHUNKED, body=data))
    while wire.held:
        await settle()
    assert Answers(bytes(wire.sent)).statuses == [200]
    assert sum(sizes) == 70_000 * 1100


@pytest.mark.parametrize(("size", "most"), [(1, 2**12), (1000, 2**12), (1100, 2**16)])
async def test_small_chunks_are_read_a_little_at_a_time(size: int, most: int) -> None:
    """Since a read is parsed in one go, while everybody waits."""
    body = chunked([b"x" * size] * 200)

    wire = Wire(Echo())
    await wire.send(request(CHUNKED, body=body[:-5]))
    assert len(wire.connection.get_buffer(-1)) == most
    wire.connection.buffer_updated(0)
    await wire.send(body[-5:] + request(line="GET / HTTP/1.1"))
    assert Answers(bytes(wire.sent)).bodies == [b"x" * size * 200, b""]


@pytest.mark.parametrize("size", [100, 40_000, 60_000, 200_000])
async def test_what_precedes_a_request_does_not_count_as_its_framing(size: int) -> None:
    body = chunked([b"x" * size])

    wire, asked = Wire(Echo()), request(CHUNKED, body=body)
    await wire.send(asked * 4)
    while wire.held:
        await settle()
    assert Answers(bytes(wire.sent)).bodies == [b"x" * size] * 4


async def test_trailers_are_no_headers() -> None:
    body = chunked([b"x"], trailers=b"Authorization: y\r\n")
    _, _, echo = await exchange([request(CHUNKED, body=body[:3]), body[3:]])
    assert [name for name, _ in echo.scopes[0]["headers"]] == [b"transfer-encoding", b"host"]
