"""service/codecs/safetensors_format.py against the official library, and what it refuses."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from kernels import dtypes
from service.codecs.base import Limits, Message
from service.codecs.safetensors import ALIGNMENT, CODEC, HEADER_LIMIT, encode
from service.errors import DecodeError, TooLarge
from tests.service.codecs.safetensors_bodies import REFUSED, entry, packed
from tests.service.codecs.samples import (
    LIMITS,
    NAMES,
    Array,
    every_dtype,
    every_shape,
    refusal,
    same,
    sample,
)


def decode(body: bytes | bytearray | memoryview, limits: Limits = LIMITS) -> Message:
    return CODEC.decode(memoryview(body), NAMES, limits)


def official(
    arrays: dict[str, Array], row: dtypes.DType, metadata: dict[str, str] | None = None
) -> bytes:
    """``arrays``, all of ``row``'s dtype, as the official library writes them."""
    specs = {
        name: safetensors.TensorSpec(
            dtype=row.name,
            shape=array.shape,
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
        for name, array in arrays.items()
    }
    return bytes(safetensors.serialize(specs, metadata=metadata))


@every_dtype
@every_shape
def test_reads_what_the_official_library_writes(row: dtypes.DType, shape: tuple[int, ...]) -> None:
    arrays = {"logits": sample(row, shape), "labels": sample(row, (3,))}
    message = decode(official(arrays, row, {"reduction": "sum"}))
    assert message.options == {"reduction": "sum"}
    assert message.tensors.keys() == arrays.keys()
    assert all(same(message.tensors[name], arrays[name]) for name in arrays)


@every_dtype
@every_shape
def test_the_official_library_reads_what_is_written(
    row: dtypes.DType, shape: tuple[int, ...]
) -> None:
    arrays = {"loss": sample(row, shape), "per_element": sample(dtypes.FLOAT64, (3,))}
    body = encode(arrays)
    read = dict(safetensors.deserialize(body))  # type: ignore[no-untyped-call]
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name]["shape"] == list(array.shape)
        assert read[name]["dtype"] == dtypes.of(array).safetensors  # type: ignore[union-attr]
        assert bytes(read[name]["data"]) == array.tobytes()


def test_safetensors_numpy_reads_what_is_written() -> None:
    arrays = {"loss": sample(dtypes.FLOAT32, ()), "labels": sample(dtypes.INTEGERS[0], (2, 3))}
    read = safetensors.numpy.load(encode(arrays))
    assert all(same(read[name], arrays[name]) for name in arrays)


def test_writes_arrays_of_any_strides_and_ml_dtypes() -> None:
    whole = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    narrow = np.array([1.5, -2, np.nan], ml_dtypes.bfloat16)
    body = encode({"logits": whole.transpose(2, 0, 1)[::-1], "weight": narrow})
    tensors = decode(body).tensors
    assert same(tensors["logits"], whole.transpose(2, 0, 1)[::-1].copy())
    assert tensors["weight"].dtype == dtypes.BFLOAT16.numpy
    assert tensors["weight"].tobytes() == narrow.tobytes()


def test_refuses_to_write_a_dtype_that_is_not_in_the_table() -> None:
    with pytest.raises(TypeError, match="loss: arrays of complex128 are not sent"):
        encode({"loss": np.zeros(2, complex)})


def test_data_is_aligned_and_the_widest_elements_come_first() -> None:
    arrays = {"weight": sample(dtypes.BFLOAT16, (3,)), "logits": sample(dtypes.FLOAT64, (5,))}
    body = encode(arrays)
    start = CODEC.aligned_at(body[:8])
    assert start is not None
    assert start % ALIGNMENT == 0
    assert body[start : start + 40] == arrays["logits"].tobytes()


def _body() -> bytes:
    return encode({"logits": sample(dtypes.FLOAT32, (2, 3)), "labels": np.arange(2)})


@pytest.mark.parametrize("make", [bytes, bytearray, lambda body: np.frombuffer(body, np.uint8)])
def test_tensors_are_views_of_the_body(make: Any) -> None:
    body = make(_body())
    for array in decode(body).tensors.values():
        assert np.shares_memory(array, np.frombuffer(body, np.uint8))
        assert array.flags.writeable == (not memoryview(body).readonly)


def test_tensors_are_views_whatever_their_alignment() -> None:
    holder = bytearray(b"\0" + _body())
    body = memoryview(holder)[1:]
    for array in decode(body).tensors.values():
        assert np.shares_memory(array, np.frombuffer(holder, np.uint8))
        assert not array.flags.aligned


def test_no_tensors_and_no_metadata_make_an_empty_message() -> None:
    assert decode(packed({})) == Message({}, {})


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (b"", None),
        (b"\x10\0\0\0\0\0\0", None),
        ((1).to_bytes(8, "little"), None),
        ((HEADER_LIMIT + 1).to_bytes(8, "little"), None),
        ((HEADER_LIMIT).to_bytes(8, "little"), HEADER_LIMIT + 8),
        (packed({"logits": entry()}, bytes(8)), 8 + len(json.dumps({"logits": entry()}))),
    ],
)
def test_aligned_at(prefix: bytes, expected: int | None) -> None:
    assert CODEC.aligned_at(prefix) == expected


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(body: bytes, message: str) -> None:
    error = refusal(lambda: decode(body))
    assert not isinstance(error, TooLarge)
    with pytest.raises(DecodeError, match=message):
        raise error


def test_null_is_no_metadata() -> None:
    assert decode(packed({"__metadata__": None})).options == {}
    metadata = {"reduction": None, "format": "pt", "empty": None}
    assert decode(packed({"__metadata__": metadata})).options == {"format": "pt"}


def test_weights_may_be_boolean() -> None:
    mask = np.array([True, False, True])
    body = safetensors.numpy.save({"weight": mask, "logits": np.zeros(2, np.float32)})
    assert same(decode(body).tensors["weight"], mask)


@pytest.mark.parametrize("cut", range(len(_body())))
def test_refuses_every_cut_body(cut: int) -> None:
    refusal(lambda: decode(_body()[:cut]))


@pytest.mark.parametrize("shape", [[0, 10**12], [2**62, 0, 2**62]])
def test_an_empty_tensor_of_absurd_extent_is_too_large(shape: list[int]) -> None:
    body = packed({"logits": entry(shape=shape, offsets=[0, 0])})
    assert isinstance(refusal(lambda: decode(body)), TooLarge)


def test_the_limit_is_exact() -> None:
    body = packed({"logits": entry(shape=[25], offsets=[0, 100])}, bytes(100))
    assert decode(body, Limits(100)).tensors["logits"].size == 25
    assert isinstance(refusal(lambda: decode(body, Limits(99))), TooLarge)


@pytest.mark.parametrize("filler", ["[],", '"a":{},', '"a":0,', "0,", "[", '"a":['])
def test_a_header_full_of_objects_is_refused_unparsed(filler: str) -> None:
    body = packed("{" + filler * (HEADER_LIMIT // len(filler) - 2))
    tracemalloc.start()
    error = refusal(lambda: decode(body))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.message == "the header has more than 4,096 brackets and commas"
    assert peak < 1.5 * HEADER_LIMIT


@pytest.mark.parametrize("depth", [900, 4000])
def test_brackets_within_the_limit_are_refused_too(depth: int) -> None:
    refusal(lambda: decode(packed('{"logits":' + "[" * depth + "]" * depth + "}")))
    refusal(lambda: decode(packed('{"a":' * depth + "0" + "}" * depth)))


def test_the_largest_header_is_read() -> None:
    metadata = {f"option{i}": "x" * 255 for i in range(3800)}
    body = packed(json.dumps({"__metadata__": metadata}).ljust(HEADER_LIMIT))
    tracemalloc.start()
    assert decode(body).options == metadata
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * HEADER_LIMIT


_ARRAYS = st.dictionaries(
    st.sampled_from(sorted(NAMES)),
    st.builds(
        sample,
        st.sampled_from(dtypes.ALL),
        st.lists(st.integers(0, 4), max_size=5),
    ),
)


@given(_ARRAYS)
def test_round_trip(arrays: dict[str, Array]) -> None:
    tensors = decode(encode(arrays)).tensors
    assert tensors.keys() == arrays.keys()
    assert all(same(tensors[name], arrays[name]) for name in arrays)
