"""Tensors in JSON bodies: their dtype, whatever the order of the keys, and the memory they take."""

from __future__ import annotations

import json
import math
import time
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from kernels import dtypes
from service.codecs.base import Limits, Message, TakesLong
from service.codecs.json import tensor
from service.codecs.json.codec import CODEC as JSON
from service.codecs.json.tensor import FLOATS
from service.errors import DecodeError, TooLarge
from tests.service.codecs.samples import LIMITS, NAMES, refusal, same


def decode(body: str, limits: Limits = LIMITS) -> Message:
    return JSON.decode(memoryview(body.encode()), NAMES, limits)


def refused(body: str) -> DecodeError:
    return refusal(partial(decode, body))


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2)])
def test_the_dtype_is_that_of_every_float_wherever_it_stands(
    dtype: dtypes.DType, order: tuple[int, ...]
) -> None:
    members = [
        f'"dtype":"{dtype.name}"',
        '"logits":[[1,2.3],[3,-4e-5]]',
        '"labels":[[0.5,0.5],[1,0]]',
        '"weight":[1,7]',
    ]
    message = decode("{" + ",".join(members[i] for i in order) + "}")
    assert message.options == {}
    values = {"logits": [[1, 2.3], [3, -4e-5]], "labels": [[0.5, 0.5], [1, 0]], "weight": [1, 7]}
    for name, value in values.items():
        kind = ml_dtypes.bfloat16 if dtype is dtypes.BFLOAT16 else dtype.numpy
        expected = np.array(value, np.float64).astype(kind).view(dtype.numpy)
        assert same(message.tensors[name], expected)


@pytest.mark.parametrize("name", ["logits", "labels", "weight", "dtype"])
def test_null_is_no_tensor_and_no_dtype(name: str) -> None:
    members = {"logits": "[1e30]", "labels": "0", "weight": "[1]", "dtype": '"float64"'}
    given = members | {name: "null"}
    left = {key: value for key, value in members.items() if key != name}
    for order in (given.items(), reversed(given.items())):
        read = decode("{" + ",".join(f'"{key}" : {value} ' for key, value in order) + "}")
        expected = decode("{" + ",".join(f'"{key}":{value}' for key, value in left.items()) + "}")
        assert read.options == expected.options == {}
        assert read.tensors.keys() == expected.tensors.keys()
        for key, array in expected.tensors.items():
            assert same(read.tensors[key], array)
    for twice in (
        f'{{"{name}":null,"{name}":null}}',
        f'{{"{name}":null,"{name}":{members[name]}}}',
    ):
        assert f"'{name}' is there twice" in refused(twice).message


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_weights_may_be_true_and_false(dtype: str) -> None:
    for text, values in (("[true,false, true ]", [1, 0, 1]), ("[[true],[0.5]]", [[1], [0.5]])):
        for name in ("weight", "sample_weight"):
            for body in (f'{{"{name}":{text},"dtype":"{dtype}"}}',
                         f'{{"dtype":"{dtype}","{name}":{text}}}'):  # fmt: skip
                names = frozenset({"logits", "weight", "sample_weight"})
                read = JSON.decode(memoryview(body.encode()), names, LIMITS).tensors[name]
                numbers = body.replace("true", "1").replace("false", "0").encode()
                assert same(read, JSON.decode(memoryview(numbers), names, LIMITS).tensors[name])
                assert dtype != "float32" or read.tolist() == values
    for name in ("logits", "labels"):
        assert "'true' is neither" in refused(f'{{"{name}":[true]}}').message
    for wrong in ("tru", "True", "truefalse", '"true"', "-true", "fals", "falsehood"):
        assert refused(f'{{"weight":[{wrong}]}}').where == "weight[0]"


def test_a_number_that_only_the_dtype_behind_it_holds() -> None:
    assert decode('{"logits":[1e39],"dtype":"float64"}').tensors["logits"].tolist() == [1e39]
    assert decode('{"labels":[1e39],"dtype":"float64"}').tensors["labels"].tolist() == [1e39]
    for body in ('{"logits":[1e39]}', '{"logits":[1e39],"dtype":"float32"}', '{"labels":[0,1e39]}'):
        assert "float32" in refused(body).message
    assert "float16" in refused('{"logits":[1e5],"dtype":"float16"}').message


@pytest.mark.parametrize("dtype", ['"int64"', '"f4"', '""', "32", '["float32"]'])
def test_unknown_dtypes(dtype: str) -> None:
    for body in (f'{{"dtype":{dtype},"logits":[1]}}', f'{{"logits":[1],"dtype":{dtype}}}'):
        error = refused(body)
        assert error.where == "dtype"
        assert "float32, float64, float16, bfloat16" in error.message


@pytest.mark.parametrize(
    ("logits", "labels", "dtype"),
    [
        ("[[1,2],[3,4]]", "[0,1]", np.int64),
        ("[[1,2],[3,4]]", "[0,1.0]", np.int64),
        ("[[1,2],[3,4]]", "[1e0,0]", np.int64),
        ("[[1,2],[3,4]]", "[-100.0,10e-1]", np.int64),
        ("[[1,2],[3,4]]", "[0,0.5]", np.float32),
        ("[[1,2],[3,4]]", "[0.0,NaN]", np.float32),
        ("[[1,2],[3,4]]", "[0.0,9007199254740992.0]", np.float32),
        ("[[1,2],[3,4]]", "[[0,1],[1,0]]", np.int64),
        ("[[1,2],[3,4]]", "[[0,1.0],[1,0]]", np.float32),
        ("[[1,2],[3,4]]", "[[0,1],[1]]", None),
        ("[1,2,3]", "1", np.int64),
        ("[1,2,3]", "1.0", np.int64),
        ("[1,2,3]", "[0,0,1]", np.int64),
        ("[1,2,3]", "[0,0,1.0]", np.float32),
        ("[]", "[]", np.float32),
        ("[[],[]]", "[0,0]", np.int64),
    ],
)
def test_labels_are_integers_unless_they_are_probabilities(
    logits: str, labels: str, dtype: Any
) -> None:
    for body in (
        f'{{"logits":{logits},"labels":{labels}}}',
        f'{{"labels":{labels},"logits":{logits}}}',
    ):
        if dtype is None:
            assert refused(body).where == "labels[1]"
            continue
        read = decode(body).tensors["labels"]
        assert read.dtype == dtype
        assert np.array_equal(read, json.loads(labels), equal_nan=True)


def test_many_labels_that_are_written_as_floats() -> None:
    """PHP's and R's writers do that; more than are looked at together."""
    values = np.random.default_rng(5).integers(0, 2, 40_000).astype(float)
    logits = [[0, 1]] * values.size
    for dtype in ("float32", "float16"):
        body = json.dumps({"dtype": dtype, "labels": values.tolist(), "logits": logits})
        read = decode(body).tensors["labels"]
        assert read.dtype == np.int64
        assert np.array_equal(read, values)
    values[39_999] = 0.25
    assert decode(json.dumps({"labels": values.tolist()})).tensors["labels"].dtype == np.float32


def test_a_tensor_under_another_name_is_pointed_out() -> None:
    body = json.dumps({"logits": [[0, 1]], "targets": [0] * 30_000})
    assert "is it labels?" in refused(body).message


def test_the_limit_on_decoded_bytes() -> None:
    body = '{"logits":[[1,2],[3,4]],"labels":[0,1]}'
    assert decode(body, Limits(32)).tensors
    for room, where in ((31, "labels"), (16, "labels"), (15, "logits"), (0, "logits")):
        error = refusal(partial(decode, body, Limits(room)))
        assert isinstance(error, TooLarge)
        assert error.where == where
    for last, room in (("float64", 48), ("float16", 24 + 8)):
        assert decode(body[:-1] + f',"dtype":"{last}"}}', Limits(room)).tensors
    with pytest.raises(TooLarge):
        decode(body[:-1] + ',"dtype":"float64"}', Limits(47))


def test_what_is_held_is_what_the_tensor_takes() -> None:
    # The commas behind a tensor do not leave it memory that it does not use.
    message = decode('{"weight":[1,2],"a":[' + "1," * 20_000 + "1]}")
    weight = message.tensors["weight"]
    base = weight if weight.base is None else weight.base
    assert base.nbytes == 8


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 71, 72, 100])
@pytest.mark.parametrize("dtype", FLOATS)
def test_reading_goes_on_between_any_two_elements(
    dtype: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor, "_PIECE", piece)
    soon = Limits(LIMITS.decoded_bytes, until=math.inf), Limits(LIMITS.decoded_bytes, until=1e300)
    values = np.arange(72).reshape(3, 2, 4, 3)
    for text in (json.dumps(values.tolist()), json.dumps((values / 8).tolist())):
        body = f'{{"dtype":"{dtype}","labels":[0,1],"logits":{text}, "weight":[[],[]]}}'
        whole, pieces = (decode(body, limits).tensors for limits in soon)
        assert all(same(whole[name], pieces[name]) for name in whole)
        for wrong in (body.replace(text, text[:-1] + ",[]]"), body.replace(", 1", ", x1", 1)):
            first, second = (refusal(partial(decode, wrong, limits)) for limits in soon)
            assert (first.where, first.message) == (second.where, second.message)


def test_text_that_takes_long_is_given_up() -> None:
    for count, late in ((tensor._PIECE, False), (tensor._PIECE + 1, True)):
        body = json.dumps({"logits": [0.12345678901234567] * count})
        assert decode(body, Limits(2**20, until=time.perf_counter() + 3600)).tensors
        if late:
            with pytest.raises(TakesLong):
                decode(body, Limits(2**20, until=0.0))
        else:
            assert decode(body, Limits(2**20, until=0.0)).tensors


@pytest.mark.parametrize("limit", [0, 4, 8, 400, 4000])
def test_elements_that_outgrow_the_guess_stay_within_the_limit(limit: int) -> None:
    body = json.dumps({"logits": [1] * (limit // 4)}, separators=(",", ":"))
    assert decode(body, Limits(limit)).tensors["logits"].tolist() == [1] * (limit // 4)
    with pytest.raises(TooLarge, match=f"{limit:,} bytes"):
        decode(json.dumps({"logits": [1] * (limit // 4 + 1)}), Limits(limit))


@pytest.mark.parametrize("count", [1, 30_000, 200_000])
def test_where_an_integer_is_too_large_all_others_are_looked_at_in_pieces(count: int) -> None:
    """A float anywhere makes them all floats; else that integer is the error."""
    names = frozenset({"labels", "logits"})
    for last, message in (("2", "more than int64 holds"), ("2.5", None)):
        text = ",".join(["9" * 20, *["1"] * count, last])
        body = memoryview(b'{"labels":[%s]}' % text.encode())
        if message is None:
            assert JSON.decode(body, names, Limits(1 << 24)).tensors["labels"].size == count + 2
        else:
            error = refusal(partial(JSON.decode, body, names, Limits(1 << 24)))
            assert message in error.message
