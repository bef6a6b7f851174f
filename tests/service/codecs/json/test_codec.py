"""JSON bodies: objects, options, dtypes and answers, against the standard library."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.codecs.base import Limits, Message
from service.codecs.json import codec as json_codec
from service.codecs.json import values
from service.codecs.json.codec import CODEC as JSON
from service.codecs.json.codec import MEMBER_LIMIT
from service.codecs.json.members import KEY_LIMIT, VALUE_LIMIT
from service.errors import DecodeError
from tests.service.codecs.samples import LIMITS, NAMES, Array, refusal, same

MIB = 1 << 20


def decode(body: str | bytes, limits: Limits = LIMITS) -> Message:
    raw = body.encode() if isinstance(body, str) else body
    return JSON.decode(memoryview(raw), NAMES, limits)


def refused(body: str | bytes) -> DecodeError:
    return refusal(lambda: decode(body))


def written(**arrays: Any) -> bytes:
    return JSON.encode({name: np.asarray(array) for name, array in arrays.items()})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)

# A character outside the basic plane takes twelve bytes once escaped. Hypothesis has a favourite
# text that is longer than the limit then.
keys = st.text(max_size=(KEY_LIMIT - 2) // 12)


@given(
    st.dictionaries(keys.filter(lambda key: key not in {*NAMES, "dtype"}), json_values),
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4)),
    st.sampled_from([None, 2]),
    st.booleans(),
    st.randoms(),
)
def test_reads_what_json_writes(
    options: dict[str, Any], logits: Array, indent: int | None, ascii_only: bool, rng: Any
) -> None:
    members = [*options.items(), ("logits", logits.tolist())]
    rng.shuffle(members)
    text = json.dumps(dict(members), indent=indent, ensure_ascii=ascii_only)
    message = decode(text.encode())
    assert repr(message.options) == repr({k: v for k, v in members if k != "logits"})  # NaN != NaN
    assert [*message.tensors] == ["logits"]
    read = message.tensors["logits"]
    assert (read.dtype, read.shape) == (np.dtype(np.float32), logits.shape)
    assert np.array_equal(read, logits, equal_nan=True)


def test_escaped_keys_and_a_body_that_is_read_only_or_not() -> None:
    body = b' \r\n{"lo\\u0067its" :[1]\t,"\\u00e9":"\xc3\xa9" } \n'
    array = np.frombuffer(bytearray(body), np.uint8)
    for view in (memoryview(body), memoryview(bytearray(body)), array.data):
        message = JSON.decode(view, NAMES, LIMITS)
        assert message.tensors["logits"].tolist() == [1.0]
        assert message.options == {"é": "é"}


def test_an_empty_object() -> None:
    assert decode(" { } ") == Message({}, {})


@pytest.mark.parametrize(
    ("body", "where", "problem"),
    [
        ("", "byte 0", "the body's end"),
        ("  ", "byte 2", "the body's end"),
        ("[1]", "byte 0", "must be one JSON object"),
        ("null", "byte 0", "'null'"),
        ("\ufeff{}", "byte 0", "byte order mark"),
        ("{}".encode("utf-16"), "byte 0", "UTF-8"),
        ("{", "byte 1", "the body's end where a key"),
        ("{}x", "byte 2", "1 bytes follow"),
        ('{"logits":[1]} {}', "byte 15", "2 bytes follow"),
        ("{logits:[1]}", "byte 1", "where a key in quotes belongs"),
        ("{'logits':[1]}", "byte 1", "where a key in quotes belongs"),
        ('{"a":1,}', "byte 7", "where a key in quotes belongs"),
        ('{,"a":1}', "byte 1", "where a key in quotes belongs"),
        ('{"a"}', "byte 4", "where a colon belongs, after key 'a'"),
        ('{"a" 1}', "byte 5", "where a colon belongs"),
        ('{"a":1 "b":2}', "byte 7", "where a comma"),
        ('{"a":01}', "byte 6", "where a comma"),
        ('{"logits":[1]]', "byte 13", "where a comma"),
        ('{"logits":[1]', "byte 13", "the body's end where a comma"),
        ('{"logits":[1,2', "logits[1]", "the body's end follows"),
        ('{"logits":', "logits", "the body's end is neither"),
        ('{"a":', "byte 5", "option 'a' is not JSON: expecting value"),
        ('{"a":tru}', "byte 5", "not JSON"),
        ('{"a":[1,}', "byte 8", "not JSON"),
        ('{"é":{"b":x}}', "byte 11", "option '\\xe9' is not JSON"),
        ('{"a":"\n"}', "byte 6", "not JSON"),
        ('{"a":"b', "byte 5", "not JSON"),
        ('{"a', "byte 1", "a key is not JSON"),
        (b'{"a":"\xff"}', "byte 5", "option 'a' is not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "byte 5", "option 'a' is not UTF-8"),
        (b'{"\xff":1}', "byte 1", "a key is not UTF-8"),
        (b'{"a":1,\xff}', "byte 7", "where a key"),
        ('{"a":1,"a":2}', "a", "'a' is there twice"),
        ('{"logits":[1],"lo\\u0067its":[1]}', "logits", "'logits' is there twice"),
        ('{"a":{"b":[{"c":1,"c":1}]}}', "byte 5", "option 'a' has a key twice"),
        ('{"a":[1e999]}', "byte 5", "option 'a' holds '1e999'"),
        ('{"a":100000000000000000000}', "byte 5", "64 bits"),
        ('{"a":' + "9" * 5000 + "}", "byte 5", "64 bits"),
        ('{"a":' + "[" * 3000 + "]" * 3000 + "}", "byte 5", "nested too deeply"),
        ('{"a":' + "[" * 10**6, "byte 5", "nested too deeply"),
        ('{"' + "[" * 10**6, "byte 1", "a key"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_object(body: str | bytes, where: str, problem: str) -> None:
    error = refused(body)
    assert error.where == where
    assert problem in error.message


def test_the_limits_of_keys_and_options() -> None:
    longest = "x" * (VALUE_LIMIT - 2)
    assert decode(f'{{"a":"{longest}"}}').options == {"a": longest}
    assert f"longer than {VALUE_LIMIT:,} bytes" in refused(f'{{"a":"{longest}x"}}').message
    longest = "x" * (KEY_LIMIT - 2)
    assert decode(f'{{"{longest}":1}}').options == {longest: 1}
    assert f"longer than {KEY_LIMIT:,} bytes" in refused(f'{{"{longest}x":1}}').message
    # Cut in the middle of a character, which is no reason to call it broken.
    assert "longer than" in refused('{"a":"' + "é" * VALUE_LIMIT + '"}').message
    members = [f'"{i}":{i}' for i in range(MEMBER_LIMIT)]
    assert len(decode("{" + ",".join(members) + "}").options) == MEMBER_LIMIT
    assert str(MEMBER_LIMIT) in refused("{" + ",".join([*members, '"logits":[1]']) + "}").message


def test_more_space_than_is_skipped_at_once() -> None:
    assert decode("{" + " \n" * 100_000 + '"logits":[1]' + "\t" * 100_000 + "}").tensors


def test_names_that_are_no_tensors_here_are_options() -> None:
    assert decode('{"log_probs":[1,2],"logits":[1]}').options == {"log_probs": [1, 2]}


finite = {
    np.float32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    np.float64: st.floats(allow_nan=False, allow_infinity=False),
    np.int64: st.integers(-(2**63), 2**63 - 1),
}


@pytest.mark.parametrize("kind", finite)
@given(data=st.data())
def test_any_reader_gets_back_the_bits_that_are_written(kind: Any, data: st.DataObject) -> None:
    shape = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    array = data.draw(hnp.arrays(kind, shape, elements=finite[kind]))
    for layout in (array, np.asfortranarray(array), array[..., ::-1] if array.ndim else array):
        read = json.loads(written(a=layout), parse_constant=pytest.fail)["a"]
        # A list without elements does not say how long its rows would have been.
        assert np.array(read, kind).reshape(layout.shape).tobytes() == layout.tobytes()


def test_float32_of_every_exponent_are_written_short_and_read_back() -> None:
    rng = np.random.default_rng(32)
    bits = (np.arange(255, dtype=np.uint32)[:, None] << 23) | rng.integers(
        0, 2**23, (255, 200), np.uint32
    )
    array = bits.view(np.float32) * np.array([1, -1], np.float32)[rng.integers(0, 2, (255, 200))]
    text = written(logits=array)
    assert same(np.array(json.loads(text)["logits"]).astype(np.float32), array)
    assert same(decode(text).tensors["logits"], array)
    assert written(loss=np.float32(1.5722)) == b'{"loss":1.5722}\n'


def test_nested_values_have_texts_for_what_json_has_no_number_for() -> None:
    value = {
        "a": [{"b": math.nan, "c": None}],
        "d": {"e": math.inf},
        "f": [-math.inf, 1.5],
        "g": {},
    }
    text = b'{"a":[{"b":"NaN","c":null}],"d":{"e":"Infinity"},"f":["-Infinity",1.5],"g":{}}'
    assert values.written(value) == text
    assert values.written({"a": "null"}) == b'{"a":"null"}'


def test_the_float32_whose_shortest_text_misleads() -> None:
    value = np.float32(np.uint32(0x15AE43FD).view(np.float32))
    assert str(value) == "7.038531e-26"
    assert np.float32(7.038531e-26) != value
    text = written(a=[value, -value], b=value, c=np.float64(7.038531e-26))
    read = json.loads(text)
    assert same(np.array(read["a"]).astype(np.float32), np.array([value, -value]))
    assert np.float32(read["b"]) == value
    assert read["c"] == 7.038531e-26


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@given(data=st.data())
def test_what_is_not_finite_is_written_as_words(kind: Any, data: st.DataObject) -> None:
    element = st.sampled_from([0.5, -0.0, math.nan, math.inf, -math.inf])
    array = data.draw(hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=3), elements=element))
    text = written(logits=array)
    assert b"null" not in text
    assert b"NaN" not in text.replace(b'"NaN"', b"")
    assert b"Infinity" not in text.replace(b'"Infinity"', b"").replace(b'"-Infinity"', b"")
    read = decode(b'{"dtype":"' + np.dtype(kind).name.encode() + b'",' + text[1:]).tensors["logits"]
    assert read.dtype == kind
    assert np.array_equal(read, array, equal_nan=True)


SLICED: dict[str, Array] = {
    "flat": np.arange(23.0),
    "rows": np.arange(40).reshape(8, 5),
    "a row is more than a piece": np.arange(48.0).reshape(3, 16),
    "deep": np.arange(48, dtype=np.float32).reshape(2, 3, 4, 2),
    "ones": np.arange(24.0).reshape(1, 1, 24, 1),
    "words": np.array([[0, np.nan, np.inf], [np.nan] * 3, [-np.inf, 1, np.nan]] * 4),
    "no rows": np.zeros((0, 30)),
    "empty rows": np.zeros((30, 0)),
    "rows of nothing": np.zeros((5, 4, 0, 30)),
    "strided": np.arange(60.0).reshape(6, 10)[::2, ::-3],
}


@pytest.mark.parametrize("most", [1, 2, 3, 7, 16, 24])
@pytest.mark.parametrize("array", SLICED.values(), ids=SLICED)
def test_a_large_array_is_written_in_slices_to_the_same_text(
    array: Array, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written(a=array, b=array.T)
    sizes = []

    def text(piece: Array) -> bytes:
        sizes.append(json_codec.written_size(piece))
        return own(piece)

    own = json_codec._text
    monkeypatch.setattr(json_codec, "_PIECE", most)
    monkeypatch.setattr(json_codec, "_text", text)
    assert written(a=array, b=array.T) == whole
    assert max(sizes, default=0) <= most


def test_answers_are_compact_objects_of_many_arrays() -> None:
    text = written(loss=np.float32(0.5), labels=np.array([[1, -2]]), **{'"é': np.zeros((2, 0))})
    assert text.decode() == '{"loss":0.5,"labels":[[1,-2]],"\\"é":[[],[]]}\n'
    assert JSON.encode({}) == b"{}\n"


def test_arrays_of_a_group_are_members_of_its_object() -> None:
    arrays = {"loss": np.float32(0.5), "routes.nll": np.arange(2), "routes.formula": np.int64(1)}
    assert written(**arrays) == b'{"loss":0.5,"routes":{"nll":[0,1],"formula":1}}\n'


def test_the_codec() -> None:
    codec = JSON
    assert (codec.name, codec.media_types) == ("json", ("application/json",))
    assert codec.aligned_at(b'{"logits":[1]}') is None
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    body = codec.encode({"logits": array})
    assert isinstance(body, bytes)
    assert same(codec.decode(memoryview(body), NAMES, LIMITS).tensors["logits"], array)
