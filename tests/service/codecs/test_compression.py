"""Compressed bodies: exactly one stream, of bounded size, paid for before it is inflated."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable
from functools import partial

import pytest

from service.codecs import compression
from service.codecs.base import DecodeError, TooLarge
from tests.service.codecs.samples import refusal

LIMIT = 1 << 20
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
}
every_coding = pytest.mark.parametrize("coding", compression.CODINGS)


def inflated(body: bytes, coding: str, limit: int = LIMIT) -> bytes:
    size, commas = compression.measured(memoryview(body), coding, limit)
    out = bytes(compression.inflate(memoryview(body), coding, size))
    assert (len(out), out.count(b",")) == (size, commas)
    return out


@every_coding
@pytest.mark.parametrize("size", [0, 1, 1000, 65536, 65537, LIMIT])
def test_what_clients_compress_comes_out(coding: str, size: int) -> None:
    for data in (random.Random(size).randbytes(size), bytes(size)):
        assert inflated(COMPRESS[coding](data), coding) == data
        parts = (data[: size // 3], memoryview(data)[size // 3 :])
        assert inflated(compression.deflate(parts, coding), coding) == data


@every_coding
def test_a_bomb_is_stopped_at_the_limit(coding: str) -> None:
    bomb = COMPRESS[coding](bytes(LIMIT + 1))
    assert len(bomb) < 2000
    with pytest.raises(TooLarge, match="more than 1,048,576 bytes"):
        inflated(bomb, coding)


def test_what_a_gzip_file_declares_is_checked() -> None:
    body = COMPRESS["gzip"](bytes(100_000))
    for declared in (0, 1, 99_999, 100_001, 2**32 - 1):
        lie = body[:-4] + declared.to_bytes(4, "little")
        error = refusal(partial(inflated, lie, "gzip"))
        assert "not exactly one gzip stream" in error.message


@every_coding
def test_anything_but_one_whole_stream_is_refused(coding: str) -> None:
    body = COMPRESS[coding](b"some text" * 100)
    other = COMPRESS[{"gzip": "deflate", "deflate": "gzip"}[coding]](b"x")
    damaged = bytearray(body)
    damaged[len(body) // 2] ^= 0xFF
    raw = zlib.compressobj(wbits=-15)
    for wrong in (
        b"",
        b"plain",
        body[:-1],
        body[:5],
        body + b"\0",
        body + body,
        other,
        bytes(damaged),
        raw.compress(b"x") + raw.flush(),
    ):
        with pytest.raises(DecodeError):
            inflated(wrong, coding)
