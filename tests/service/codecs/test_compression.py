"""Compressed bodies: exactly one stream, of bounded size, paid for before it is inflated."""

from __future__ import annotations

import gzip
import json
import math
import random
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from service.codecs import compression
from service.codecs.base import Limits, TakesLong, justified, justified_text
from service.codecs.v2.codec import Inference
from service.errors import DecodeError, TooLarge
from tests.service.codecs import infers
from tests.service.codecs.samples import refusal, same

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


@every_coding
def test_of_json_that_comes_first_no_more_is_inflated_than_it_tells_of(
    coding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.random.default_rng(0).normal(size=(100, 50)).astype(np.float32)
    body, header = infers.binary({"logits": logits})
    compressed = memoryview(COMPRESS[coding](body))
    limits = Limits(1 << 20)

    def inference() -> Inference:
        return infers.inference(header, coding=coding, limits=limits)

    with monkeypatch.context() as patched:
        patched.setattr(compression, "measured", None)
        asked = inference()
        assert asked.decoded_bytes(compressed) == len(body)
        tensors = asked.decode(compressed, infers.NAMES, limits).tensors
        assert same(tensors["logits"], logits)
    for more, message in ((b"x", "holds more than the"), (b"", "bytes follow the JSON")):
        wrong = memoryview(COMPRESS[coding](body + more if more else body[:-1]))
        asked = inference()
        asked.decoded_bytes(wrong)
        error = refusal(partial(asked.decode, wrong, infers.NAMES, limits))
        assert message in error.message


@every_coding
@pytest.mark.parametrize("header", [True, False])
def test_a_body_inflates_to_what_its_length_justifies(coding: str, header: bool) -> None:
    count = 100_000
    if header:
        zeros = np.zeros((1, count), np.float32)
        body, length = infers.binary({"logits": zeros})
    else:
        entry = infers.declared("logits", np.zeros((1, count), np.float32), data=[0] * count)
        body, length = json.dumps({"inputs": [entry]}).encode(), None
    asked = infers.inference(length, coding=coding, limits=Limits(1 << 24))
    with pytest.raises(TooLarge, match="send it without Content-Encoding"):
        asked.decoded_bytes(memoryview(COMPRESS[coding](body)))
    assert justified(1_000) < len(body) < justified(len(body) // 10)


def test_longer_bodies_justify_more() -> None:
    lengths = [10**power for power in range(10)]
    for function in (justified, justified_text):
        results = [function(length) for length in lengths]
        assert results == sorted(set(results)) or function is justified_text
        assert all(result > length for result, length in zip(results, lengths, strict=True))
    assert justified_text(1_000_000) < 3.5e6 < 30e6 < justified_text(3_000_000)


@every_coding
def test_inflating_ends_when_its_time_is_over(coding: str) -> None:
    body = memoryview(COMPRESS[coding](bytes(LIMIT)))
    for inflate in (
        partial(compression.measured, body, coding, LIMIT),
        partial(compression.inflate, body, coding, LIMIT),
        partial(compression.beginning, body, coding, LIMIT),
    ):
        inflate(until=math.inf)
        with pytest.raises(TakesLong):
            inflate(until=0.0)
