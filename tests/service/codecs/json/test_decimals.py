"""Decimal to binary against Python's float(), Fraction and NumPy, to the bit."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import dtypes
from service.codecs.json.codec import CODEC as JSON
from tests.service.codecs.json_samples import decoded, nearest_bfloat16, refused
from tests.service.codecs.samples import LIMITS, NAMES, Array

LARGEST = 2**1024 - 2**970  # halfway from the largest float64 to 2**1024: the first to overflow


def assert_read_as_float(number: str) -> None:
    """As Python's float() reads it, to the bit, behind text that shifts it and in front of some."""
    expected = float(number)
    for text in (f"[{number}]", f"[1,{number} ,-0.25]"):
        if math.isinf(expected):
            error = refused(text)
            assert "float64" in error.message
            continue
        element = decoded(text)[1 if "," in text else 0]
        assert element.tobytes() == np.float64(expected).tobytes(), number


digits = st.text("0123456789", min_size=1, max_size=45)
decimals = st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{int(whole)}{fraction}{exponent}",
    st.sampled_from(["", "-"]),
    digits,
    st.one_of(st.just(""), digits.map(".{}".format)),
    st.one_of(
        st.just(""),
        st.builds(
            "{}{}{}".format,
            st.sampled_from(["e", "E"]),
            st.sampled_from(["", "+", "-"]),
            st.one_of(st.integers(0, 45), st.integers(280, 400)).map(str),
        ),
    ),
)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_shortest_text_of_every_float64(value: float) -> None:
    assert_read_as_float(repr(value))
    assert_read_as_float(f"{value:.17e}")
    assert_read_as_float(f"{value:.25e}")


@given(decimals)
def test_every_decimal(number: str) -> None:
    assert_read_as_float(number)


@pytest.mark.parametrize("power", range(-345, 311, 5))
def test_every_power_of_ten(power: int) -> None:
    rng = random.Random(power)
    for size in (1, 2, 53, 54, 63, 64):
        word = min(rng.getrandbits(size) | 1 << (size - 1), 10**19 - 1)
        for exponent in range(power, power + 5):
            assert_read_as_float(f"{word}e{exponent}")


def midpoints() -> Iterator[Fraction]:
    """Numbers halfway between two float64s, of every size."""
    rng = random.Random(53)
    for exponent in (*range(-1075, 971, 93), -1074, -60, -53, -1, 0, 1, 917, 970):
        for fraction in (2**52, 2**53 - 1, 2**52 + rng.getrandbits(52)):
            yield Fraction(2 * fraction + 1) * Fraction(2) ** exponent
    for fraction in (0, 1, 2, 2**52 - 1, rng.getrandbits(52)):
        yield Fraction(2 * fraction + 1, 2**1075)


def exact(value: Fraction) -> tuple[str, int]:
    """All significant digits of a dyadic fraction, and the power of ten of the last one."""
    twos = value.denominator.bit_length() - 1
    text = str(value.numerator * 5**twos)
    return text, -twos


def test_midpoints_and_what_is_just_beside_them() -> None:
    for value in midpoints():
        text, power = exact(value)
        below = str(int(text) - 1)
        for number, more in (
            (text, 0),
            (text + "0" * 30, 30),
            (text + "0" * 900 + "1", 901),
            (below + "9" * 30, 30),
            (below + "9" * 900, 900),
        ):
            assert_read_as_float(f"{number}e{power - more}")
            assert_read_as_float(f"{number[:1]}.{number[1:]}0e{power - more + len(number) - 1}")


SHORT = """
    0 -0 0.0 -0.0 0e999 -0e-999 0.000e400 5e-324 2.4703282292062327e-324 2.4703282292062328e-324
    2.2250738585072011e-308 2.2250738585072014e-308 1.7976931348623157e308 1.7976931348623158e308
    1.7976931348623159e308 9007199254740993 9007199254740992.5 18446744073709551615
    18446744073709551616 1e22 1e23 9999999999999999999e22 8.5e-10 6.929001713869936e236 1e-400 1e400
    1e99999999999999999999 1e-99999999999999999999 1E00000000000000000000000000000001
"""
LONG = [
    f"0.{'0' * 400}1e400",
    f"1{'0' * 400}e-400",
    f"0.{'0' * 200_000}1e200000",
    f"1{'0' * 308}",
    f"1{'0' * 309}",
    f"{LARGEST}",
    f"{LARGEST - 1}.{'9' * 50}",
    f"3.{'1' * 5000}",
    f"0.{'9' * 800}",
    f"0.{'9' * 10_000}",
    f"1.{'0' * 799}1",
]


@pytest.mark.parametrize("number", SHORT.split() + LONG, ids=lambda number: number[:24])
def test_numbers_that_are_easily_got_wrong(number: str) -> None:
    assert_read_as_float(number)
    assert_read_as_float("-" + number.removeprefix("-"))


@pytest.mark.parametrize("size", range(1, 42))
def test_fractions_of_every_length_up_to_the_body_end(size: int) -> None:
    # Eight digits are read at once: not so where the text ends sooner.
    number = "7." + "1234567890" * 5
    number = number[: 2 + size]
    for tail in ("}", " }", "  }  ", "}" + " " * 9):
        body = ('{"dtype":"float64","logits":' + number + tail).encode()
        read = JSON.decode(memoryview(body), NAMES, LIMITS).tensors["logits"]
        assert read.shape == ()
        assert read == float(number)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.floats(width=32).filter(math.isfinite))
def test_float32_and_float16_are_rounded_as_numpy_does(value: float) -> None:
    with np.errstate(over="ignore"):
        for dtype in (np.float32, np.float16):
            expected = np.float64(value).astype(dtype)
            if np.isinf(expected):
                assert "Infinity" in refused(repr(value), dtype.__name__).message
            else:
                assert decoded(repr(value), dtype.__name__).tobytes() == expected.tobytes()


@given(st.floats(-3.38e38, 3.38e38) | st.floats(-1e-37, 1e-37))
def test_bfloat16_is_rounded_once(value: float) -> None:
    read = decoded(repr(value), "bfloat16")
    assert read.dtype == dtypes.BFLOAT16.numpy
    assert read.view(np.uint16) == nearest_bfloat16(value)


def narrow_floats(dtype: dtypes.DType) -> Array:
    """Every float of 16 bits, in the order of its bits, as float64."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):  # a cast of a signalling NaN
        if dtype is dtypes.FLOAT16:
            return bits.view(np.float16).astype(np.float64)
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


narrow = pytest.mark.parametrize(
    "dtype", [dtypes.FLOAT16, dtypes.BFLOAT16], ids=lambda dtype: dtype.name
)


@narrow
def test_every_16_bit_float_comes_back(dtype: dtypes.DType) -> None:
    floats = narrow_floats(dtype)
    read = decoded(json.dumps(floats.tolist()), dtype.name).view(np.uint16)
    quiet = np.isnan(floats)
    assert np.array_equal(read[~quiet], np.flatnonzero(~quiet))
    assert np.unique(read[quiet]).tolist() == [0x7E00 if dtype is dtypes.FLOAT16 else 0x7FC0]


@narrow
def test_what_lies_between_every_two_16_bit_floats(dtype: dtypes.DType) -> None:
    floats = narrow_floats(dtype)
    last = np.flatnonzero(np.isinf(floats))[0] - 1
    bits = np.arange(last, dtype=np.uint16)
    middle = (floats[:last] + floats[1 : last + 1]) / 2
    for values, expected in (
        (middle, bits + bits % 2),
        (np.nextafter(middle, 0), bits),
        (np.nextafter(middle, np.inf), bits + 1),
    ):
        read = decoded(json.dumps([values.tolist(), (-values).tolist()]), dtype.name)
        assert np.array_equal(read.view(np.uint16), [expected, expected | 0x8000])


@pytest.mark.parametrize(
    ("dtype", "largest", "first_too_large"),
    [
        ("float64", "1.797693134862315807e308", "1.797693134862315808e308"),
        ("float32", "3.4028235677973362e38", "3.4028235677973366e38"),
        ("bfloat16", "3.3961775292304597e38", "3.39617752923046e38"),
        ("float16", "65519.999999", "65520"),
    ],
)
def test_no_finite_number_becomes_infinite(dtype: str, largest: str, first_too_large: str) -> None:
    for sign in ("", "-"):
        widened = decoded(f"[{sign}{largest}]", dtype)
        bits = widened.view(np.uint16) if dtype == "bfloat16" else widened
        assert (bits != 0x7F80).all() if dtype == "bfloat16" else np.isfinite(bits).all()
        error = refused(f"[[0],[{sign}{first_too_large}]]", dtype)
        assert error.where == "logits[1][0]"
        assert sign + first_too_large in error.message
        assert dtype in error.message
