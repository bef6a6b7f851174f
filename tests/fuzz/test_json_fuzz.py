"""JSON bodies changed at random: a message or a DecodeError, and exactly when the oracle says so.

The oracle is the standard library's parser and Python's own arithmetic: it knows nothing of how
the codec reads.
"""

from __future__ import annotations

import json
import math
import random
import re
from typing import Any

import numpy as np
import pytest

from service.codecs.base import MAX_RANK, Limits, Message
from service.codecs.json.codec import CODEC as JSON
from service.errors import DecodeError
from tests.fuzz.bodies import EXAMPLES, TOKENS, corpus, example

NAMES = frozenset({"logits", "labels", "weight"})
LIMITS = Limits(decoded_bytes=1 << 20)
LARGEST = {"float32": 3.4028235677973366e38, "float64": math.inf, "float16": 65520.0}

CORPUS = [body.raw for body in corpus("json", "accepted")]
WORD = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("twice")
    return dict(pairs)


def finite(text: str) -> float:
    if math.isinf(float(text)):
        raise ValueError("infinite")
    return float(text)


def flat(value: Any, depth: int, elements: list[Any]) -> tuple[int, ...]:
    """The shape of a nested list, whose elements are added to ``elements``."""
    if not isinstance(value, list):
        if isinstance(value, str) and WORD.fullmatch(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("no number")
        elements.append(value)
        return ()
    if depth == MAX_RANK:
        raise ValueError("deep")
    shapes = [flat(item, depth + 1, elements) for item in value]
    if len(set(shapes)) > 1:
        raise ValueError("ragged")
    return (len(value), *(shapes[0] if shapes else ()))


def as_floats(elements: list[Any], dtype: str) -> np.ndarray[Any, Any]:
    for element in elements:
        if math.isfinite(element) and abs(float(element)) >= LARGEST[dtype]:
            raise ValueError("too large")
    return np.array([float(element) for element in elements]).astype(dtype)


def is_whole(element: Any) -> bool:
    return abs(float(element)) < 2**53 and float(element).is_integer()


def oracle(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Meaning of ``body``: tensors and options; ValueError if it has none."""
    try:
        options = json.loads(body.decode(), object_pairs_hook=unique, parse_float=finite)
    except OverflowError:
        raise ValueError("too large") from None
    if not isinstance(options, dict):
        raise ValueError("no object")
    raw = {name: options.pop(name) for name in list(options) if name in NAMES}
    dtype = options.pop("dtype", "float32")
    if not isinstance(dtype, str) or dtype not in LARGEST:
        raise ValueError("no dtype")
    tensors: dict[str, Any] = {}
    flattened: dict[str, list[Any]] = {name: [] for name in raw}
    shapes = {name: flat(value, 0, flattened[name]) for name, value in raw.items()}
    for name, elements in flattened.items():
        integers = name == "labels" and all(isinstance(element, int) for element in elements)
        if integers and any(not -(2**63) <= element < 2**63 for element in elements):
            raise ValueError("too large")
        like_logits = name == "labels" and shapes["labels"] == shapes.get("logits")
        if name == "labels" and not like_logits and all(map(is_whole, elements)):
            integers = True
        if integers and (elements or not like_logits):
            array = np.array([int(element) for element in elements], np.int64)
        else:
            array = as_floats(elements, dtype)
        tensors[name] = array.reshape(shapes[name])
    if any(isinstance(value, int) and not -(2**63) <= value < 2**64 for value in numbers(options)):
        raise ValueError("too large")
    return tensors, options


def numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    return [n for item in value for n in numbers(item)] if isinstance(value, list) else [value]


def outcome(body: bytes) -> Message | str:
    try:
        return JSON.decode(memoryview(body), NAMES, LIMITS)
    except DecodeError as error:
        return error.message


def agrees(body: bytes) -> bool:
    """True if ``body`` is accepted; either answer is proved to be right."""
    try:
        expected = oracle(body)
    except (ValueError, OverflowError, RecursionError):
        expected = None
    message = outcome(body)
    assert isinstance(message, str) == (expected is None), body
    if isinstance(message, str) or expected is None:
        assert isinstance(message, str)
        assert message.isascii()
        assert 0 < len(message) < 2000
        return False
    tensors, options = expected
    assert repr(message.options) == repr(options), body
    assert message.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        read = message.tensors[name]
        assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape), body
        assert np.array_equal(read, tensor, equal_nan=True), body
    return True


@pytest.mark.parametrize("body", CORPUS, ids=range(len(CORPUS)))
def test_the_corpus_and_every_part_of_it(body: bytes) -> None:
    assert agrees(body)
    for at in range(len(body)):
        agrees(body[:at])
        agrees(body[at:])
        agrees(body[:at] + body[at + 1 :])


def test_changed_bodies() -> None:
    accepted = sum(agrees(example("json", number).raw) for number in range(EXAMPLES))
    # Both sides must be seen, or the changes are too small or too large to show anything.
    assert 0.05 * EXAMPLES < accepted < 0.6 * EXAMPLES


def test_random_bytes() -> None:
    rng = random.Random(256)
    for _ in range(EXAMPLES // 10):
        agrees(b"".join(rng.choices(TOKENS, k=rng.randrange(12))))
        agrees(b'{"logits":[' + b"".join(rng.choices(TOKENS, k=rng.randrange(12))) + b"]}")
