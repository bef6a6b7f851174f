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
from service.codecs.base import DecodeError, Limits, TooLarge
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


def saved(array: Any, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), version=version, allow_pickle=False)
    return file.getvalue()


def packed(
    header: str, data: bytes = b"", version: bytes = b"\x01\x00", length: int | None = None
) -> bytes:
    size = len(header) if length is None else length
    prefix = b"\x93NUMPY" + version + size.to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return prefix + header.encode("latin-1") + data


def described(
    descr: str = "'<f4'", order: str = "False", shape: str = "(2,)", data: bytes = bytes(8)
) -> bytes:
    return packed(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n", data)


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
        assert _SUPPORTED in refusal(lambda body=body: decode(body)).message  # type: ignore[misc]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("make", [bytes, bytearray])
def test_the_array_is_a_view(order: Any, make: Any) -> None:
    holder = make(b"\0" + saved(np.array(sample(dtypes.FLOAT64, (2, 3)), order=order)))
    read = decode(memoryview(holder)[1:])
    assert np.shares_memory(read, np.frombuffer(holder, np.uint8))
    assert read.flags.writeable == (make is bytearray)


_SUPPORTED = "the dtypes are float32, float64, float16, bfloat16, int64"
_NO_START = "must start with the magic string, version"
_NO_DICT = "the header must be a dict of exactly descr"
_NO_TUPLE = "is not a tuple of integers from 0"
REFUSED: dict[str, tuple[bytes, str]] = {
    # before the header
    "empty": (b"", _NO_START),
    "magic": (b"\x92NUMPY" + saved(np.zeros(2))[6:], _NO_START),
    "pickle": (b"\x80\x04K\x01.", _NO_START),
    "version_0": (packed("{}", version=b"\x00\x00"), _NO_START),
    "version_1.1": (packed("{}", version=b"\x01\x01"), _NO_START),
    "version_4": (packed("{}", version=b"\x04\x00"), _NO_START),
    "header_past_the_end": (packed("{}", length=3), _NO_START),
    "header_of_4GB": (packed("{}", version=b"\x02\x00", length=2**32 - 1), "at most 65,536"),
    "header_of_64KB_and_1": (packed(" " * 65537, version=b"\x02\x00"), "at most 65,536"),
    # the dict
    "no_dict": (packed("7"), _NO_DICT),
    "empty_dict": (packed("{}"), _NO_DICT),
    "open_dict": (packed("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)"), _NO_DICT),
    "list": (packed("['descr': '<f4', 'fortran_order': False, 'shape': (2,)}"), _NO_DICT),
    "two_dicts": (packed("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}{}"), _NO_DICT),
    "missing_key": (packed("{'descr': '<f4', 'shape': (2,)}", bytes(8)), _NO_DICT),
    "extra_key": (described(shape="(2,), 'x': True"), _NO_DICT),
    "duplicate_key": (described(shape="(2,), 'shape': (2,)"), _NO_DICT),
    "no_comma": (packed("{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}"), _NO_DICT),
    "two_commas": (described(shape="(2,),"), _NO_DICT),
    "mixed_quotes": (described(descr="'<f4\""), _NO_DICT),
    "escape": (described(descr=r"'\x3cf4'"), _NO_DICT),
    "nul": (packed("\0{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"), _NO_DICT),
    "not_ascii": (described(descr="'<f4'\xa0"), _NO_DICT),
    "call": (described(descr="str('<f4')"), _NO_DICT),
    "descr_is_a_tuple": (described(descr="(4,)"), _NO_DICT),
    "descr_is_a_bool": (described(descr="True"), _NO_DICT),
    "order_is_a_number": (described(order="0"), _NO_DICT),
    "order_is_a_string": (described(order="'False'"), _NO_DICT),
    "9000_parens": (described(shape="(" * 9000), _NO_DICT),
    "9000_braces": (packed("{" * 9000), _NO_DICT),
    "60000_spaces": (described(shape="(" + "1" + " " * 60000 + "1,)"), _NO_TUPLE),
    # dtypes
    "structured": (
        described(descr="[('a', '<f4'), ('b', '<f4')]"),
        "structured dtypes are not read: " + _SUPPORTED,
    ),
    "subarray": (described(descr="('<f4', (2,))"), "structured dtypes are not read"),
    "object": (described(descr="'|O'"), "'|O': arrays of objects are pickles"),
    "big_endian": (
        described(descr="'>f4'"),
        r"'>f4': big-endian .* array.astype\(array.dtype.newbyteorder\('<'\)\)",
    ),
    "bool": (described(descr="'|b1'"), r"dtype '\|b1': " + _SUPPORTED),
    "complex": (described(descr="'<c8'"), _SUPPORTED),
    "string": (described(descr="'<U2'"), _SUPPORTED),
    "big_endian_complex": (described(descr="'>c8'"), _SUPPORTED),
    "long_double": (described(descr="'<f16'"), _SUPPORTED),
    "big_endian_word": (described(descr="'>i'"), "'>i': big-endian"),
    "two_types": (described(descr="'f4,f4'"), f"'f4,f4': {_SUPPORTED}"),
    "repeated": (described(descr="'2f4'"), f"'2f4': {_SUPPORTED}"),
    "deprecated": (described(descr="'a4'"), f"'a4': {_SUPPORTED}"),
    "space": (described(descr="' f4'"), f"' f4': {_SUPPORTED}"),
    "object_word": (described(descr="'object'"), "pickles"),
    "huge": (described(descr="'V99999999999999'"), _SUPPORTED),
    "no_dtype": (described(descr="''"), _SUPPORTED),
    "long_descr": (described(descr=f"'{'f' * 9000}'"), r"'f{60}'\.\.\.: the dtypes"),
    # shapes
    "shape_is_a_number": (described(shape="2"), _NO_DICT),
    "shape_is_a_list": (described(shape="[2]"), _NO_DICT),
    "shape_in_parens": (described(shape="(2)"), r"shape \(2\) is not a tuple"),
    "comma_only": (described(shape="(,)"), _NO_TUPLE),
    "commas": (described(shape="(2,,)"), _NO_TUPLE),
    "shape_of_bools": (described(shape="(True,)"), _NO_DICT),
    "negative": (described(shape="(-2,)"), _NO_DICT),
    "float": (described(shape="(2.0,)"), _NO_DICT),
    "underscore": (described(shape="(1_0,)"), _NO_DICT),
    "long": (described(shape="(2L,)"), _NO_DICT),
    "leading_zero": (described(shape="(02,)"), _NO_TUPLE),
    "two_numbers": (described(shape="(1 1,)"), _NO_TUPLE),
    "20_digits": (described(shape=f"({10**19},)"), _NO_TUPLE),
    "nested": (described(shape="((2,),)"), _NO_DICT),
    "33_dimensions": (described(shape="(" + "1," * 33 + ")"), "33 dimensions, but at most 32"),
    "30000_dimensions": (described(shape="(" + "1," * 30000 + ")"), "30000 dimensions"),
    # sizes
    "no_data": (described(shape="(1000000000000,)", data=b""), "takes 4,000,000,000,000 bytes"),
    "product_wraps_to_0": (
        described(shape="(4294967296, 4294967296)", data=b""),
        r"takes more than 2\*\*63 bytes, but 0 are there",
    ),
    "product_wraps_to_8": (described(shape=f"({2**62 + 2},)"), r"more than 2\*\*63 bytes, but 8"),
    "short": (described(data=bytes(7)), r"\[2\] of float32 takes 8 bytes, but 7 are there"),
    "trailing_byte": (described(data=bytes(9)), r"takes 8 bytes, but 9 are there"),
    "no_dimensions": (described(shape="()"), r"shape \[\] of float32 takes 4 bytes, but 8"),
}


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
