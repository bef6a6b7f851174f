"""Numbers that are read in vectors: as float() and NumPy read them, to the bit, at every place."""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from service.codecs.json import element_types
from service.codecs.json.codec import CODEC as JSON
from service.codecs.json.digits import DIGITS, WINDOW
from service.codecs.json.plain_numbers import read_plain
from service.codecs.json.tensor import FLOATS
from service.errors import DecodeError
from tests.kernels.guarded import PLACER
from tests.service.codecs.json_samples import decoded, nearest_bfloat16, refused
from tests.service.codecs.samples import LIMITS, NAMES, Array

BEHIND = " " * (WINDOW + 1)  # so much text behind a number has it read in vectors
every_dtype = pytest.mark.parametrize("dtype", FLOATS)
narrower = pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])


def expected(numbers: list[str], dtype: str) -> Array:
    """Values that float() reads, rounded to ``dtype``, as its carrier."""
    values = [float(number) for number in numbers]
    carrier = FLOATS[dtype].row.numpy
    if dtype == "bfloat16":
        bits = [0x7FC0 if math.isnan(value) else nearest_bfloat16(value) for value in values]
        return np.array(bits, np.uint16).view(carrier)
    return np.array(values).astype(carrier)


def assert_read(numbers: list[str], dtype: str, separator: str = ",") -> None:
    read = decoded("[" + separator.join(numbers) + "]" + BEHIND, dtype)
    assert read.tobytes() == expected(numbers, dtype).tobytes(), numbers


@cache
def reader() -> Any:
    """``read_plain``, called from Python."""
    return njit(error_model="numpy", _nrt=False)(
        lambda text, at, target, outputs, count, most: read_plain(
            text, at, target, outputs, count, most
        )
    )


def read_in_vectors(text: str, dtype: str = "float32", most: int = 10**6) -> tuple[int, int]:
    """End of what ``read_plain`` reads, and the count of its numbers."""
    size = text.count(",") + 1
    kinds = (np.float32, np.float64, np.uint16, np.int64)
    outputs = [np.empty(size, kind) for kind in kinds]
    data = np.frombuffer((text + BEHIND).encode(), np.uint8)
    target = FLOATS[dtype].target
    end, count = reader()(data, 0, target, element_types.Outputs(*outputs), 0, min(most, size))
    return int(end), int(count)


plain = st.builds(
    "{}{}.{}".format,
    st.sampled_from(["", "-"]),
    st.integers(0, 10**6).map(str) | st.integers(0, 10**15).map(str),
    st.text("0123456789", min_size=1, max_size=WINDOW),
)


@every_dtype
@given(numbers=st.lists(plain | st.floats(-60000, 60000).map(repr), min_size=1, max_size=5))
def test_plain_numbers_and_others_between_them(dtype: str, numbers: list[str]) -> None:
    numbers = [number for number in numbers if abs(float(number)) < 65000] or ["0.5"]
    for separator in (",", ", ", ",  ", " ,", ",\n\t"):
        assert_read(numbers, dtype, separator)
    for before in numbers:
        assert_read([before, "1", "-1e-3", before, "NaN", *numbers], dtype)


def around(middle: Fraction) -> Iterator[str]:
    """Texts of a number halfway between two elements, and of what is just beside it."""
    digits = 80
    exact = middle * 10**digits
    assert exact.denominator == 1
    text = f"{int(exact):0{digits + 1}d}"
    whole = f"{text[:-digits]}.{text[-digits:]}"
    stripped = whole.rstrip("0")
    yield stripped if not stripped.endswith(".") else stripped + "0"
    for size in range(1, WINDOW):
        cut = whole[: whole.index(".") + 1 + size]
        yield cut
        yield cut[:-1] + str(min(int(cut[-1]) + 1, 9))


@narrower
@given(value=st.floats(2**-10, 60000))
def test_what_lies_halfway_between_two_elements(dtype: str, value: float) -> None:
    # Bounds of a number that is cut off are on either side of a midpoint that it is close to.
    bits = {"float32": 24, "float16": 11, "bfloat16": 8}[dtype]
    unit = Fraction(2) ** (math.frexp(value)[1] - bits)
    middle = (Fraction(value) // unit + Fraction(1, 2)) * unit
    numbers = [number for number in around(middle) if float(number) < 65000]
    assert_read(numbers, dtype)
    assert_read([f"-{number}" for number in numbers], dtype)


@every_dtype
def test_every_length_at_every_place_before_the_end(dtype: str) -> None:
    digits = "1234567890987654321234567890123456789"
    for whole in range(1, 5):
        for fraction in range(1, WINDOW + 3):
            number = digits[:whole] + "." + digits[whole : whole + fraction]
            for sign in ("", "-"):
                for behind in range(0, WINDOW + 3, 3):
                    body = f'{{"dtype":"{dtype}","logits":[{sign}{number}]{" " * behind}}}'
                    read = JSON.decode(memoryview(body.encode()), NAMES, LIMITS)
                    assert (
                        read.tensors["logits"].tobytes()
                        == expected([sign + number], dtype).tobytes()
                    )


@every_dtype
@pytest.mark.parametrize("zero", ["0.0", "-0.0", "0.00000000000000000000", "-0." + "0" * 40])
def test_zeros_and_their_signs(dtype: str, zero: str) -> None:
    assert_read([zero, "0.5", zero], dtype)


@contextmanager
def at_a_guard_page(body: bytes) -> Iterator[memoryview]:
    """``body`` in front of a page that faults when it is touched."""
    address = PLACER.allocate(len(body))
    try:
        view = (ctypes.c_ubyte * len(body)).from_address(address)
        ctypes.memmove(view, body, len(body))
        yield memoryview(view).cast("B")
    finally:
        PLACER.free(address)


@pytest.mark.parametrize("length", range(4, WINDOW + 3))
def test_nothing_behind_the_text_is_read(length: int) -> None:
    number = "-3.1415926535897932384626433832795028841"[:length]
    for tail in ("", "]", "]}", "]}" + " " * WINDOW):
        for before in ("", "0.5,", "0.5, 0.25, "):
            with at_a_guard_page(f'{{"logits":[{before}{number}{tail}'.encode()) as body:
                if "}" in tail:
                    JSON.decode(body, NAMES, LIMITS)
                else:
                    with pytest.raises(DecodeError):
                        JSON.decode(body, NAMES, LIMITS)


WRONG = """
    01.5 -01.5 00.5 .5 -.5 1. -1. 1.5.5 1.5e 1.5e+ --1.5 +1.5 -+1.5 1,.5 1.-5 -1.5- 1.5x 0x1.5
    1.5} 1.5[ 1..5 -NaN.5 1.2345678901234567.8 1.5\0 1.\u0665
"""


@pytest.mark.parametrize("wrong", WRONG.split())
@every_dtype
def test_what_is_wrong_is_named_among_plain_numbers(dtype: str, wrong: str) -> None:
    plain_row = ", ".join(["-1.5", "0.25", "3.0"])
    for separator in (",", ", "):
        rows = separator.join([f"[{plain_row}]", f"[1.5{separator}{wrong}{separator}2.5]"])
        error = refused(f"[{rows}]{BEHIND}", dtype)
        assert error.where is not None
        assert error.where.startswith(("logits[1][1]", "logits[1][2]"))
        # The careful reader alone, without text behind it, says the same.
        short = refused(f"[{rows}]", dtype)
        assert (short.where, short.message) == (error.where, error.message)


def test_ragged_rows_of_plain_numbers() -> None:
    row = [0.5] * 7
    for at in range(1, 5):
        for change in (-1, 1):
            rows = [row] * 5
            rows[at] = [0.5] * (7 + change)
            error = refused(json.dumps(rows) + BEHIND, "float32")
            assert error.where == f"logits[{at}]"
            assert f"row has {7 + change} elements, expected 7 like logits[0]" in error.message


def test_float16_refuses_what_rounds_to_infinity() -> None:
    for number in ("65520.0", "-65520.0", "70000.5", "65520.000000000000001"):
        error = refused(f"[0.5,{number}]{BEHIND}", "float16")
        assert error.where == "logits[1]"
        assert number in error.message
    assert_read(["65519.99999999", "-65519.99999999"], "float16")


@narrower
def test_typical_text_is_read_in_vectors(dtype: str) -> None:
    values = np.random.default_rng(5).normal(0, 3, 1000).astype(np.float32)
    values = values[np.abs(values) > 1e-3].tolist()  # smaller ones have exponents
    for separators in ((", ", ": "), (",", ":")):
        text = json.dumps(values, separators=separators)[1:]
        assert read_in_vectors(text, dtype) == (len(text) - 1, len(values))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1.5,2.5]", 2),
        ("1.5, 2.5]", 2),
        ("1.5,2.5, 3.5,4.5]", 3),
        ("1.5, 2.5,3.5]", 2),
        ("1.5,  2.5]", 1),
        ("1.5,2,3.5]", 1),
        ("1.5,2.5e0]", 1),
        ("1.5 ,2.5]", 0),
        ("1,2.5]", 0),
        ("[1.5]", 0),
        ("1.5],2.5]", 1),
    ],
)
def test_where_a_run_of_plain_numbers_ends(text: str, count: int) -> None:
    assert read_in_vectors(text)[1] == count
    assert read_in_vectors(text, most=1)[1] == min(count, 1)


def test_more_digits_than_are_read_together() -> None:
    ones = "0." + "1" * DIGITS
    assert_read([ones + tail for tail in ("", "1", "9", "999", "0", "11111111")], "float32")


def test_float64s_are_left_to_the_careful_reader() -> None:
    assert_read(["0.1", "2.2250738585072014", "123456789.12345678901"], "float64")
