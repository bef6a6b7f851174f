"""The committed bodies, among them those that have broken readers elsewhere."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest

from service.errors import DecodeError
from tests.fuzz.bodies import codec, corpus, decode
from tests.service.codecs import samples

FORMATS = ("json", "safetensors", "npz", "infer")


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_right_is_read(name: str) -> None:
    bodies = corpus(name, "accepted")
    assert bodies
    for body in bodies:
        decode(codec(name, body), memoryview(bytearray(body.raw)))


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_wrong_is_refused(name: str) -> None:
    bodies = corpus(name, "refused")
    assert bodies
    for body in bodies:
        read = memoryview(bytearray(body.raw))
        samples.refusal(partial(decode, codec(name, body), read))


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_cut_anywhere_is_read_or_refused(name: str) -> None:
    for body in corpus(name):
        for end in range(min(len(body.raw), 600)):
            for raw in (body.raw[:end], body.raw[end:]):
                with suppress(DecodeError):
                    decode(codec(name, body), memoryview(bytearray(raw)))
