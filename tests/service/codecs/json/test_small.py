"""Short bodies are read by another parser, and to the same bits."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.codecs.base import Message
from service.codecs.json import small as small_json
from service.codecs.json.codec import CODEC as JSON
from service.errors import DecodeError
from tests.service.codecs.samples import LIMITS, NAMES, same

PLAIN = b'{"logits": [[0, 1.5, -2e-3], [3, 4, 0.1]], "labels": [1, 2], "reduction": "sum", "z": 1}'


def small(body: bytes, most: int = 2**20) -> Message | None:
    return small_json.decode(memoryview(body), NAMES, most)


def large(body: bytes) -> Message | None:
    """As bodies are read that are not short: these only have more space behind them."""
    try:
        padded = body + b" " * small_json.LONGEST
        return JSON.decode(memoryview(padded), NAMES, LIMITS)
    except DecodeError:
        return None


def agree(body: bytes) -> None:
    short, long = small(body), large(body)
    if short is None:
        return
    assert long is not None, "the other parser refuses it"
    assert short.options == long.options
    assert list(map(type, short.options.values())) == list(map(type, long.options.values()))
    assert short.tensors.keys() == long.tensors.keys()
    for name, tensor in short.tensors.items():
        assert same(tensor, long.tensors[name])


def test_what_is_plain_is_read_here() -> None:
    message = small(PLAIN)
    assert message is not None
    assert message.options == {"reduction": "sum", "z": 1}
    agree(PLAIN)


numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    # Halfway between two float32, or a little beside it.
    st.tuples(
        st.integers(1, 2**24).map(lambda n: n * 2.0**-20), st.sampled_from(["", "0", "1", "00001"])
    ).map(
        lambda pair: (
            format(
                (pair[0] + float(np.nextafter(np.float32(pair[0]), np.float32(np.inf)))) / 2, ".60f"
            ).rstrip("0")
            + pair[1]
        )
    ),
    st.sampled_from(
        ["-0", "-0.0", "1e-45", "1e-40", "3.4e38", "3.5e38", "1e400", "0", "9007199254740993"]
    ),
)
odd = st.sampled_from(["true", "null", '"1"', "NaN", "{}", "[", "]", "", '"a\\u0062"', "01", "+1"])
rows = st.lists(st.one_of(numbers, numbers, numbers, odd), max_size=4).map(", ".join)
tensors = st.one_of(
    rows.map("[{}]".format),
    st.lists(rows.map("[{}]".format), max_size=3).map(lambda r: f"[{','.join(r)}]"),
    numbers,
)
keys = st.sampled_from(
    ["logits", "labels", "weight", "dtype", "a", "ignore_index", "outputs", "\\u0061"]
)
options = st.sampled_from(
    ['"sum"', '["loss", "rank"]', "[1]", "0.5", '"float64"', "-100", "{}", '"\\n"', "1e300"]
)
members = st.lists(st.tuples(keys, st.one_of(tensors, options)), max_size=4)


@given(members)
def test_what_is_read_is_what_the_other_parser_reads(given: list[tuple[str, str]]) -> None:
    agree(("{" + ", ".join(f'"{key}": {value}' for key, value in given) + "}").encode())


@given(st.data())
def test_so_it_is_with_damaged_bodies(data: Any) -> None:
    body = bytearray(PLAIN)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b'"', b",", b"[", b"}", b"\x80", b"-", b"e", b"0", b" "])
        )
    agree(bytes(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"logits": [1], "logits": [2]}',
        b'{"a": 1, "a": 2}',
        b'{"logits": ["1"]}',
        b'{"logits": [true]}',
        b'{"logits": [null]}',
        b'{"logits": [-0]}',
        b'{"logits": [1.00000005960464477539]}',  # 1 + 2**-24
        b'{"logits": [[1, 2], [3]]}',
        b'{"labels": [1.0]}',
        b'{"labels": [18446744073709551616]}',
        b'{"logits": [], "labels": []}',
        b'{"dtype": "float64", "logits": [1]}',
        b"[1]",
        b"",
    ],
)
def test_what_is_not_plain_is_left_to_the_other_parser(body: bytes) -> None:
    assert small(body) is None


def test_the_limit_of_decoded_bytes_holds() -> None:
    assert small(PLAIN, 6 * 4 + 2 * 8) is not None
    assert small(PLAIN, 6 * 4 + 2 * 8 - 1) is None


def test_short_bodies_are_read_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_json, "decode", lambda *_: Message({}, {"here": json.dumps(1)}))
    body = b" " * (small_json.LONGEST - len(PLAIN)) + PLAIN
    assert JSON.decode(memoryview(body), NAMES, LIMITS).options == {"here": "1"}
    assert JSON.decode(memoryview(b" " + body), NAMES, LIMITS).tensors
