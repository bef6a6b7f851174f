"""The scanner of tensors' JSON text: shapes, words, integers, and what it says is wrong where."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kernels import dtypes
from service.codecs.base import MAX_RANK
from service.codecs.json.codec import CODEC as JSON
from tests.service.codecs.json_samples import decoded, refused
from tests.service.codecs.samples import LIMITS, NAMES, Array, refusal, same, sample


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_the_words_bare_and_as_strings(dtype: str) -> None:
    read = decoded('[NaN, Infinity,-Infinity ,"NaN","Infinity","-Infinity"]', dtype)
    if dtype == "bfloat16":
        assert read.view(np.uint16).tolist() == [0x7FC0, 0x7F80, 0xFF80] * 2
    else:
        assert np.array_equal(read, [np.nan, np.inf, -np.inf] * 2, equal_nan=True)


# As Python, R, Go, C, C++, Java, .NET, Julia, Ruby, PostgreSQL and JavaScript print them.
@pytest.mark.parametrize("name", ["nan", "NaN", "NAN", "-nan", "-NaN", "inf", "Inf", "INF"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_words_in_strings_as_any_language_prints_them(name: str, dtype: str) -> None:
    signed = [name, f"+{name.lstrip('-')}", f"-{name.lstrip('-')}"]
    longer = ["infinity", "+Infinity", "-INFINITY"] if "n" in name.lower() else []
    words = [*signed, *longer]
    read = decoded(json.dumps(words), dtype)
    assert np.array_equal(read, np.array(words, float), equal_nan=True)


def test_null_is_told_what_wrote_it_and_what_to_send() -> None:
    error = refused("[[1,2],[null,4]]")
    assert error.where == "logits[1][0]"
    assert "JSON.stringify" in error.message
    assert '"-Infinity", "Infinity" and "NaN"' in error.message
    assert "send 1" in refused("[true,false]").message
    assert "send 0" in refused("[1,false]").message


@given(hnp.arrays(np.int64, hnp.array_shapes(max_dims=4, min_side=0)))
def test_integers(array: Array) -> None:
    read = decoded(json.dumps(array.tolist()), name="labels")
    assert read.dtype == np.int64
    assert read.tolist() == array.tolist()


@given(
    hnp.arrays(np.float64, hnp.array_shapes(max_dims=5, max_side=4)),
    st.sampled_from([None, 0, 1, "\t"]),
)
def test_nested_lists_of_any_rank_and_spacing(array: Array, indent: Any) -> None:
    read = decoded(json.dumps(array.tolist(), indent=indent))
    assert read.shape == array.shape
    assert np.array_equal(read, array, equal_nan=True)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("[]", (0,)),
        ("[ ]", (0,)),
        ("[[],[]]", (2, 0)),
        ("[[[]],[[\n]]]", (2, 1, 0)),
        ("[" * MAX_RANK + "1" + "]" * MAX_RANK, (1,) * MAX_RANK),
        ("[" * MAX_RANK + "]" * MAX_RANK, (1,) * (MAX_RANK - 1) + (0,)),
    ],
)
def test_shapes(text: str, shape: tuple[int, ...]) -> None:
    assert decoded(text).shape == shape


SHAPE = (3, 2, 4, 3)


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_ragged_row_is_named_at_every_level(level: int, change: int) -> None:
    for place in np.ndindex(SHAPE[:level]):
        nested = np.zeros(SHAPE).tolist()
        row = nested
        for i in place:
            row = row[i]
        if change > 0:
            row.append(row[0])
        else:
            row.pop()
        error = refused(json.dumps(nested))
        # The first row sets the length: if it is the odd one, the second one is at fault.
        if any(place):
            at, found, expected = place, SHAPE[level] + change, SHAPE[level]
        else:
            at, found, expected = (0,) * (level - 1) + (1,), SHAPE[level], SHAPE[level] + change
        assert error.where == "logits" + "".join(f"[{i}]" for i in at)
        like = "logits" + "[0]" * level
        assert f"row has {found} elements, expected {expected} like {like}" in error.message


WRONG = """
    null true {"a":[1]} "1" nan +1 01 -01 1. .5 - -- --1 -.5 1.e5 1e 1e+ 1E- -NaN "NaN "nan
    Inf infinity +Infinity 'NaN' \u0663 \\ # "" "+" "-" "i" "in" "infi" "infinit" "infinityy" "nann"
    "--inf" "+-nan" "NA" "n" "na" "1.#INF" "\u0131nf"
"""


@pytest.mark.parametrize("wrong", WRONG.split())
@pytest.mark.parametrize("name", ["logits", "labels"])
def test_what_is_no_number_is_named_with_its_index(wrong: str, name: str) -> None:
    error = refused(f"[[[1,2],[3,4]],[[5,{wrong}],[7,8]]]", name=name)
    assert error.where == f"{name}[1][0][1]"
    assert f"{name}[1][0][1]: " in error.message
    # A tensor that is null is not there.
    assert wrong == "null" or refused(wrong, name=name).where == name


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("[[1,2],3]", "logits[1]", "'3' where a row is expected, like logits[0]"),
        ("[[1,2],[3,[4]]]", "logits[1][1]", "a row where a number is expected"),
        ("[1,[]]", "logits[1]", "a row where a number is expected"),
        ("[[],[[]]]", "logits[1][0]", "a row where a number is expected"),
        ("[[],[1]]", "logits[1]", "row has 1 elements, expected 0 like logits[0]"),
        ("[[[1]],[]]", "logits[1]", "row has 0 elements, expected 1 like logits[0]"),
        ("[1 2]", "logits[0]", "'2' follows, where a comma or a closing bracket belongs"),
        ("[0x10]", "logits[0]", "'x10' follows"),
        ("[[1]2]", "logits[0]", "'2' follows"),
        ("[1}", "logits[0]", "'}' follows"),
        ("[1,]", "logits[1]", "']' is neither"),
        ("[,1]", "logits[0]", "',' is neither"),
        ("[[1],]", "logits[1]", "']' where a row"),
        ("[NaNs]", "logits[0]", "'s' follows"),
        ("nul", "logits", "'nul' is neither"),
        ("nulls", "logits", "'nulls' is neither"),
        ("[null]", "logits[0]", 'send them as strings, "-Infinity"'),
    ],
)
def test_what_is_no_tensor(text: str, where: str, problem: str) -> None:
    error = refused(text)
    assert error.where == where
    assert problem in error.message


@pytest.mark.parametrize("count", [MAX_RANK + 1, 1_000_000])
def test_deep_nesting_is_refused_where_it_gets_too_deep(count: int) -> None:
    error = refused("[" * count)
    assert error.where == "logits" + "[0]" * MAX_RANK
    assert "32" in error.message


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[1,9223372036854775808]", "labels[1]"),
        ("[-9223372036854775809]", "labels[0]"),
        ("[[0],[99999999999999999999]]", "labels[1][0]"),
        ("[18446744073709551616]", "labels[0]"),
    ],
)
def test_integers_that_int64_does_not_hold(text: str, where: str) -> None:
    error = refused(text, name="labels")
    assert error.where == where
    assert "int64" in error.message


@pytest.mark.parametrize("text", ["[9223372036854775808,0.5]", "[NaN,9223372036854775808]"])
def test_large_integers_among_floats_are_floats(text: str) -> None:
    assert np.array_equal(
        decoded(text, name="labels"), np.array(json.loads(text), np.float64), equal_nan=True
    )


def test_every_prefix_of_a_tensor_is_refused() -> None:
    text = '{"logits": [[1.25e+3, -17], ["-Infinity", NaN], [0.1234567890123456789012, -Infinity]]'
    JSON.decode(memoryview((text + "}").encode()), NAMES, LIMITS)
    for size in range(len(text)):
        refusal(partial(JSON.decode, memoryview(text[:size].encode()), NAMES, LIMITS))


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda dtype: dtype.name)
def test_the_array_is_contiguous_and_writable(dtype: dtypes.DType) -> None:
    array = sample(dtypes.FLOAT32, (5, 7, 3))
    array = np.where(np.isfinite(array) & (np.abs(array) < 1e4), array, 0)
    read = decoded(json.dumps(array.tolist()), dtype.name)
    assert read.dtype == dtype.numpy
    assert read.flags.c_contiguous
    assert read.flags.writeable
    if dtype is dtypes.FLOAT32:
        assert same(read, array)
