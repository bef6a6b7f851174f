"""V2 requests made from parts, with JSON and binary inputs, some of which lie."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from kernels import dtypes
from service.codecs import compression
from tests.fuzz.makers import mutated, number, shape
from tests.service.codecs import infers, samples


@dataclass(frozen=True, slots=True)
class Body:
    """A body, and what a V2 request's headers say of it."""

    raw: bytes
    header_length: int | None = None
    coding: str | None = None


_WRONG: dict[str, tuple[Any, ...]] = {
    "name": ("logit", "", 7, None, "\ud800"),
    "datatype": ("FP32", "FP64", "BYTES", "BOOL", "fp32", 3, None),
    "shape": ([-1], [2**32, 2**32], [2**63], [1.0], [True], "2", None, [[2]]),
    "parameters": (
        {"binary_data_size": 2**40},
        {"binary_data_size": -1},
        {"binary_data_size": True},
        {"shared_memory_region": "none", "shared_memory_byte_size": 8},
        [],
        7,
    ),
    "data": ([], [[]], [[1], 2], ["x"], [None], {}, 0, [1e999], [2**70]),
}
_PARAMETERS: tuple[dict[str, Any], ...] = (
    {},
    {"reduction": "sum"},
    {"binary_data_output": True},
    {"triton_x": 1, "priority": 2},
    {"label_smoothing": float("nan")},
    {"binary_data_output": 3},
)


def infer(rng: random.Random) -> Body:
    """A request with up to three inputs: half of the time there is something wrong with it."""
    names = rng.sample(["logits", "labels", "weight"], rng.randint(0, 3))
    tail, inputs = b"", []
    for name in names:
        array = samples.sample(rng.choice([row for row in dtypes.ALL if row.v2]), shape(rng))
        entry = infers.declared(name, array)
        if rng.random() < 0.6:
            entry["parameters"] = {"binary_data_size": array.nbytes}
            tail += array.tobytes()
        else:
            entry["data"] = rng.choices((0, 1, -2, 0.5), k=array.size)
        inputs.append(entry)
    if inputs and rng.random() < 0.3:
        key = rng.choice(list(_WRONG))
        rng.choice(inputs)[key] = rng.choice(_WRONG[key])
    members: dict[str, Any] = {"inputs": inputs, "parameters": rng.choice(_PARAMETERS)}
    if rng.random() < 0.3:
        members["id"] = rng.choice(("1", "", "\x00", 7, "x" * 1025))
    if rng.random() < 0.3:
        wanted = rng.choices(("loss", "per_element", "rank", "none"), k=rng.randint(0, 2))
        members["outputs"] = [{"name": name} for name in wanted]
    text = json.dumps(members).encode()
    if rng.random() < 0.15:
        text = mutated(rng, text)
    return _sent(rng, text, tail)


def _sent(rng: random.Random, text: bytes, tail: bytes) -> Body:
    """The body that these make, and headers that fit it, for the most part."""
    length: int | None = len(text)
    if rng.random() < 0.1:
        length = rng.choice((None, 0, len(text) + 1, len(text) - 1, number(rng)))
    elif not tail and rng.random() < 0.5:
        length = None
    raw = text + tail
    if rng.random() < 0.1:
        raw = mutated(rng, raw) if raw else b"{"
    if rng.random() < 0.8:
        return Body(raw, length)
    coding = rng.choice(compression.CODINGS)
    coded = compression.deflate([raw], rng.choice((coding, coding, coding, "gzip")))
    return Body(mutated(rng, coded) if rng.random() < 0.1 else coded, length, coding)
