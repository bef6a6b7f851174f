"""service/codecs/npy.py against NumPy's own reader and writer, and what it refuses."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import dtypes
from service.codecs import npy
from service.codecs.base import Limits
from service.errors import DecodeError, TooLarge
from tests.service.codecs.npys import REFUSED, SUPPORTED, described, packed, saved
from tests.service.codecs.samples import (
    LIMITS,
    Array,
    as_numpy_saves,
    every_dtype,
    every_shape,
    refusal,
    same,
    sample,
)


def decode(body: bytes | bytearray | memoryview, limits: Limits = LIMITS) -> Array:
    return npy.decode(memoryview(body), limits, where="a.npy")


@every_dtype
@every_shape
@pytest.mark.parametrize("order", ["C", "F"])
def test_reads_what_numpy_writes(row: dtypes.DType, shape: tuple[int, ...], order: Any) -> None:
    array = np.array(sample(row, shape), order=order)
    read = decode(saved(as_numpy_saves(array)))
    assert same(read, array)
    assert read.flags.f_contiguous if order == "F" else read.flags.c_contiguous


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_reads_every_version(version: tuple[int, int]) -> None:
    array = sample(dtypes.FLOAT32, (2, 3))
    body = saved(array, version)
    assert body[6:8] == bytes(version)
    assert same(decode(body), array)
    assert npy.data_start(body[: npy.PREFIX]) == len(body) - array.nbytes


@every_dtype
@every_shape
def test_numpy_reads_the_header_that_is_written(row: dtypes.DType, shape: tuple[int, ...]) -> None:
    array = sample(row, shape)
    header = npy.header(row, shape)
    assert len(header) % npy.ALIGNMENT == 0
    read = np.load(io.BytesIO(header + array.tobytes()), allow_pickle=False)
    assert read.shape == shape
    assert read.tobytes() == array.tobytes()
    assert row is dtypes.BFLOAT16 or read.dtype == row.numpy
    if row is not dtypes.BFLOAT16:
        assert header + array.tobytes() == saved(array)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr':'<f4','fortran_order':False,'shape':(2,)}",
        '{"shape": (2,), "fortran_order": False, "descr": "<f4"}',
        "  { 'fortran_order' : False , 'shape' : ( 2 , ) , 'descr' : '<f4' , }   \n",
    ],
)
def test_reads_any_order_of_keys_quotes_and_spaces(header: str) -> None:
    body = packed(header, bytes(8))
    assert same(decode(body), np.zeros(2, np.float32))
    assert same(np.load(io.BytesIO(body)), np.zeros(2, np.float32))


def spellings() -> list[str]:
    """Every word that NumPy takes for a dtype, and some that it does not."""
    letters = [chr(code) for code in range(33, 127) if chr(code) not in "'\\a"]
    names = [name for name in map(str, np.sctypeDict) if name != "a"]
    sized = [f"{letter}{size}" for letter in letters for size in (1, 2, 3, 4, 8, 16)]
    return [order + word for order in ("", *"<>=|") for word in (*letters, *names, *sized)]


def test_reads_every_spelling_that_numpy_reads() -> None:
    types = {row.numpy.str: row for row in dtypes.ALL} | {"|V2": dtypes.BFLOAT16}
    read = []
    for word in spellings():
        body = described(descr=f"'{word}'", shape="()", data=b"")
        try:
            row = types.get(np.dtype(word).str)
        except (TypeError, ValueError, SyntaxError):
            row = None
        if row is None:
            refusal(lambda body=body: decode(body))  # type: ignore[misc]
        else:
            array = sample(row, ())
            assert same(decode(body + array.tobytes()), array)
            read.append(word)
    assert {"<u1", "|u1", ">u1", "<i1", "=f4", "f4", "float32", "e", "<d", "q", "=V2"} <= set(read)


def test_weights_may_be_boolean() -> None:
    mask = np.array([True, False])
    for word in ("|b1", "?", "bool", "=b1", "<?"):
        body = described(descr=f"'{word}'", data=mask.tobytes())
        for name in ("weight", "sample_weight"):
            assert same(npy.decode(memoryview(body), LIMITS, where="a.npy", name=name), mask)
        assert SUPPORTED in refusal(lambda body=body: decode(body)).message  # type: ignore[misc]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("make", [bytes, bytearray])
def test_the_array_is_a_view(order: Any, make: Any) -> None:
    holder = make(b"\0" + saved(np.array(sample(dtypes.FLOAT64, (2, 3)), order=order)))
    read = decode(memoryview(holder)[1:])
    assert np.shares_memory(read, np.frombuffer(holder, np.uint8))
    assert read.flags.writeable == (make is bytearray)


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(body: bytes, message: str) -> None:
    error = refusal(lambda: decode(body))
    assert not isinstance(error, TooLarge)
    assert error.where == "a.npy"
    with pytest.raises(DecodeError, match=f"^a.npy.*{message}"):
        raise error


@pytest.mark.parametrize("cut", range(128 + 24))
def test_refuses_every_cut_file(cut: int) -> None:
    refusal(lambda: decode(saved(sample(dtypes.FLOAT32, (2, 3)))[:cut]))


def test_refuses_what_numpy_pickles() -> None:
    file = io.BytesIO()
    np.save(file, np.array([None, {}]), allow_pickle=True)
    assert "pickles, which are never read" in refusal(lambda: decode(file.getvalue())).message


def test_an_empty_array_of_absurd_extent_is_too_large() -> None:
    body = described(shape="(0, 1000000000000)", data=b"")
    assert isinstance(refusal(lambda: decode(body)), TooLarge)


def test_the_limit_is_exact() -> None:
    assert decode(described(), Limits(8)).size == 2
    assert isinstance(refusal(lambda: decode(described(), Limits(7))), TooLarge)


@pytest.mark.parametrize("size", range(npy.PREFIX))
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_data_start_of_a_short_prefix(size: int, version: tuple[int, int]) -> None:
    start = npy.data_start(saved(np.zeros(3), version)[:size])
    assert start == (128 if version == (1, 0) and size >= 10 else None)


@given(
    st.sampled_from(dtypes.ALL),
    st.lists(st.integers(0, 4), max_size=5),
    st.sampled_from("CF"),
    st.sampled_from([(1, 0), (2, 0), (3, 0)]),
)
def test_round_trip(
    row: dtypes.DType, shape: list[int], order: Any, version: tuple[int, int]
) -> None:
    array = np.array(sample(row, shape), order=order)
    assert same(decode(saved(as_numpy_saves(array), version)), array)
