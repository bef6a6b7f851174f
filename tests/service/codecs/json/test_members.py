"""Values of any length, each decoded alone, and what a body's values may take in all."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from service.codecs.json import members
from service.codecs.json.codec import CODEC as JSON
from service.codecs.json.members import VALUE_LIMIT, value_at
from tests.service.codecs.infers import decoded
from tests.service.codecs.samples import LIMITS, NAMES, refusal

# Lengths about those at which more of the body is decoded.
_LENGTHS = [1, 500, *range(508, 514), 4090, 4096, 4100, 32_768, 65_000]


@pytest.mark.parametrize("length", _LENGTHS)
@pytest.mark.parametrize("character", ["x", "\u00e9", "\u20ac", "\U0001f600", "\\n"])
def test_a_value_ends_where_it_ends_whatever_its_length(length: int, character: str) -> None:
    inside = "".join([character] * (length // len(character.encode())))
    for value in (f'"{inside}"', f'["{inside}", {{"a": 1}}]', "1" * min(length, 18)):
        for rest in (b"", b", 1]", b"\xff" * 600, "\u20ac".encode() * 300):
            text = value.encode() + (b" " if value[0] == "1" else b"") + rest
            found, end = value_at(memoryview(text), 0, VALUE_LIMIT, "it")
            assert (found, end) == (json.loads(value), len(value.encode()))


@pytest.mark.parametrize("length", _LENGTHS)
def test_what_is_not_utf_8_is_no_value_wherever_it_is(length: int) -> None:
    for broken in (b"\xff", b"\xe2\x82", b"\xed\xa0\x80"):
        for text in (b'"' + b"x" * length + broken + b'"', b'"' + b"x" * length + broken):
            error = refusal(partial(value_at, memoryview(text), 0, VALUE_LIMIT, "it"))
            assert (error.message, error.where) == ("it is not UTF-8", "byte 0")


def test_short_values_of_a_long_body_are_decoded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    utf8 = members._utf8

    def counted(raw: bytes, last: bool) -> tuple[str, bool]:
        taken.append(len(raw))
        return utf8(raw, last)

    monkeypatch.setattr(members, "_utf8", counted)
    entry = {str(number): number for number in range(60)}
    body = json.dumps({"a\\": 0, "inputs": [entry] * 8}).encode() + b"\xff" * VALUE_LIMIT
    refusal(lambda: decoded(body))
    assert len(taken) > 400
    assert sum(taken) < 1000 * len(taken)


def test_options_take_so_many_bytes_in_all() -> None:
    def sent(*lengths: int) -> bytes:
        options: dict[str, Any] = {f"o{n}": "x" * length for n, length in enumerate(lengths)}
        return json.dumps({"logits": [1.5] * 999, **options}).encode()

    decode = partial(JSON.decode, names=NAMES, limits=LIMITS)
    half = VALUE_LIMIT // 2
    assert len(decode(memoryview(sent(half - 2, half - 2))).options) == 2
    for lengths in (
        (VALUE_LIMIT - 1,),
        (half, half - 2),
        *([VALUE_LIMIT // 50] * n for n in (50,)),
    ):
        error = refusal(lambda lengths=lengths: decode(memoryview(sent(*lengths))))  # type: ignore[misc]
        assert f"option 'o{len(lengths) - 1}' is not JSON" in error.message


def test_members_of_a_request_are_few_in_all() -> None:
    entry = {str(number): number for number in range(60)}
    error = refusal(lambda: decoded(json.dumps({"a\\": 0, "inputs": [entry] * 9})))
    assert error.message == "more than 512 members in all"


def test_an_input_that_is_none_is_refused_before_its_elements_are_read() -> None:
    body = b'{"inputs":[{"name":"nothing","datatype":"FP32","shape":[1],"data":[1,'
    assert refusal(lambda: decoded(body)).message.startswith("unknown tensor 'nothing'")
