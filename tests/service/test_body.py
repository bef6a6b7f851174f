"""A body comes whole and aligned however it is cut, or is refused as soon as that is known."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterable, MutableMapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import body
from service.codecs import CODECS, Codec, DecodeError, TooLarge
from service.errors import Disconnected
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


def receive(
    feed: Feed, codec: Codec = JSON, length: int | None = None, limit: int = 2**20
) -> memoryview:
    return asyncio.run(body.receive(feed, codec, length, limit))


def cut(content: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(content) + 1) for place in places), len(content)]
    return [content[start:end] for start, end in pairwise(edges)]


def resident() -> int:
    """The most bytes of memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
    offset = SAFETENSORS.first_tensor_at(content)
    assert offset is not None
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


def test_memory_that_is_declared_is_not_touched() -> None:
    before = resident()
    with pytest.raises(DecodeError, match="declared"):
        receive(Feed([b"x"]), length=2**30, limit=2**30)
    assert resident() - before < 2**26


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
