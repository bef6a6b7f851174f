"""A body comes whole and aligned however it is cut, or is refused as soon as that is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, MutableMapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import regimes
from service.codecs import CODECS, Codec
from service.errors import DecodeError, Disconnected, Overloaded, TooLarge
from service.request import body
from service.request.body import Reception
from tests.service import wire

BY_NAME = {codec.name: codec for codec in CODECS}
JSON, SAFETENSORS = BY_NAME["json"], BY_NAME["safetensors"]


class Feed:
    """An ASGI ``receive`` that gives ``chunks``, and counts how often it was asked."""

    def __init__(self, chunks: Iterable[bytes], *, gone: bool = False) -> None:
        pieces = list(chunks)
        self.messages: list[MutableMapping[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": gone or index < len(pieces) - 1}
            for index, piece in enumerate(pieces)
        ]
        if gone:
            self.messages.append({"type": "http.disconnect"})
        self.asked = 0

    async def __call__(self) -> MutableMapping[str, Any]:
        self.asked += 1
        return self.messages[self.asked - 1]


class Memory:
    """A lease that gives whatever it is asked for, and remembers how much that was."""

    def __init__(self, refuse: Exception | None = None) -> None:
        self.leased = 0
        self.refuse = refuse

    def memory(self, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.full(size, 255, np.uint8)

    async def grow(self, size: int) -> None:
        self.leased += size
        if self.refuse is not None:
            raise self.refuse

    def expect_more(self) -> None:
        pass


class Server:
    """Gives ``content`` in messages of ``first`` bytes, or lands it in pieces."""

    def __init__(self, content: bytes, first: int) -> None:
        self.rest = content
        self.first = first

    def take(self, count: int) -> bytes:
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    async def receive(self) -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": self.take(self.first), "more_body": True}

    async def receive_into(self, destination: memoryview, progress: Callable[[int], None]) -> None:
        for start in range(0, len(destination), 9999):
            end = min(start + 9999, len(destination))
            destination[start:end] = self.take(end - start)
            progress(end)


async def whole(
    feed: Feed,
    codec: Codec = JSON,
    length: int | None = None,
    limit: int = 2**20,
    memory: Memory | None = None,
) -> memoryview:
    receiving = await Reception(feed, None, codec, length, limit).body(memory or Memory())
    received = await receiving.all()
    assert receiving.filled == len(receiving.memory) == len(received)
    return received


def receive(
    feed: Feed,
    codec: Codec = JSON,
    length: int | None = None,
    limit: int = 2**20,
    memory: Memory | None = None,
) -> memoryview:
    return asyncio.run(whole(feed, codec, length, limit, memory))


def cut(content: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(content) + 1) for place in places), len(content)]
    return [content[start:end] for start, end in pairwise(edges)]


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8), st.booleans())
def test_any_cut_gives_the_same_body(content: bytes, places: list[int], declared: bool) -> None:
    feed = Feed(cut(content, places))
    assert receive(feed, length=len(content) if declared else None) == content


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
@pytest.mark.parametrize("size", [1, 1000, 70_000, 300_000])
def test_the_first_tensor_is_aligned_and_the_body_writable(size: int, declared: bool) -> None:
    logits = np.arange(size, dtype=np.float32)
    content = wire.safetensors_body({"logits": logits}, {"odd": "x" * (size % 7)})
    feed = Feed(content[at : at + 50_000] for at in range(0, len(content), 50_000))
    length = len(content) if declared else None
    received = receive(feed, SAFETENSORS, length, limit=2**22)
    assert received == content
    assert not received.readonly
    offset = SAFETENSORS.aligned_at(content)
    assert offset is not None
    if not declared or len(content) > regimes.JOINED_BODY_BYTES:
        assert (address(received) + offset) % 64 == 0


def test_an_empty_body_is_empty() -> None:
    assert len(receive(Feed([b""]))) == 0
    assert len(receive(Feed([b""]), length=0)) == 0


@pytest.mark.parametrize(
    ("chunks", "length", "asked"),
    [
        ([b"12345"], 4, 1),
        ([b"1234", b"5", b"6"], 4, 2),
        ([b"123"], 4, 1),
        ([b""], 4, 1),
        ([b"1"], 0, 1),
    ],
)
def test_a_length_that_is_not_true_is_refused(chunks: list[bytes], length: int, asked: int) -> None:
    feed = Feed(chunks)
    with pytest.raises(DecodeError, match="declared"):
        receive(feed, length=length)
    assert feed.asked == asked


def test_a_chunked_body_is_refused_once_it_is_over_the_limit() -> None:
    feed = Feed([b"x" * 10] * 100)
    with pytest.raises(TooLarge, match="at most 95 bytes"):
        receive(feed, limit=95)
    assert feed.asked == 10
    assert receive(Feed([b"x" * 10] * 9 + [b"12345"]), limit=95) == b"x" * 90 + b"12345"


@pytest.mark.parametrize("received", range(4))
def test_a_client_that_goes_away_ends_it(received: int) -> None:
    with pytest.raises(Disconnected):
        receive(Feed([b"abc"] * received, gone=True), length=12)


@pytest.mark.parametrize("size", [1, 1000, 70_000, 300_000])
@pytest.mark.parametrize("first", [1, 100, 16_384])
async def test_what_is_landed_is_the_same_and_aligned(size: int, first: int) -> None:
    content = wire.safetensors_body({"logits": np.arange(size, dtype=np.float32)}, {"odd": "x" * 5})
    offset = SAFETENSORS.aligned_at(content)
    assert offset is not None
    told: list[int] = []

    server, memory = Server(content, first), Memory()
    reception = Reception(server.receive, server, SAFETENSORS, len(content), 2**22)
    receiving = await reception.body(memory)
    assert receiving.memory[: receiving.filled] == content[: receiving.filled]
    receiving.progress = told.append
    count = (receiving.filled + len(content)) // 2
    await receiving.at_least(count)
    assert receiving.filled == count
    await receiving.at_least(count - 1)
    assert receiving.filled == count
    assert memory.leased == 0
    received = await receiving.all()
    assert received == content
    assert (address(received) + offset) % 64 == 0
    assert told == sorted(set(told))
    assert not told or told[-1] == len(content)


def test_the_place_of_the_first_tensor_is_waited_for() -> None:
    content = wire.safetensors_body({"logits": np.arange(40_000, dtype=np.float32)}, {"odd": "x"})
    feed = Feed(content[at : at + 1] for at in range(len(content)))
    received = receive(feed, SAFETENSORS, len(content))
    offset = SAFETENSORS.aligned_at(content)
    assert offset is not None
    assert (address(received) + offset) % 64 == 0


@pytest.mark.parametrize(
    ("sizes", "leased"),
    [
        ([0], 0),
        ([1000], 1000),
        ([1000, 1000], 2000),
        ([40_000] * 3, 2 * 80_000),
        ([10_000] * 50, 8 * 70_000),
        ([10_000] * 100, 2**20),
        ([70_000, 900_000], 970_000),
    ],
)
def test_a_chunked_body_leases_at_most_twice_its_length(sizes: list[int], leased: int) -> None:
    memory = Memory()
    content = np.random.default_rng(7).bytes(sum(sizes))
    feed = Feed(cut(content, np.cumsum(sizes)))
    assert receive(feed, memory=memory) == content
    assert memory.leased == leased


@pytest.mark.parametrize("size", [1000, 200_000])
def test_what_the_lease_says_is_passed_on(size: int) -> None:
    with pytest.raises(Overloaded):
        receive(Feed([bytes(size)] * 2), memory=Memory(Overloaded("no memory")))


@pytest.mark.parametrize(
    ("fields", "length"), [([], None), (["0"], 0), (["100"], 100), (["0100"], 100)]
)
def test_the_declared_length_is_read(fields: list[str], length: int | None) -> None:
    assert body.declared_length(fields, 100) == length


@pytest.mark.parametrize(
    "fields", [[""], ["-1"], ["1.0"], ["1e3"], ["x"], ["٣"], ["1", "1"], ["9" * 21]]
)
def test_a_length_that_is_no_number_is_refused(fields: list[str]) -> None:
    with pytest.raises(DecodeError, match="Content-Length"):
        body.declared_length(fields, 100)


@pytest.mark.parametrize("length", ["101", "9" * 20])
def test_a_length_over_the_limit_is_refused_before_anything_is_read(length: str) -> None:
    with pytest.raises(TooLarge, match="at most 100 bytes"):
        body.declared_length([length], 100)
