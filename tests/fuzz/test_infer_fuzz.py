"""V2 bodies changed at random: a message or a DecodeError, and the same whichever way it is read.

A header without long values is read at once, any other member by member, as is one that a space
precedes: both must say the same of it. LOSSD_FUZZ_EXAMPLES is the number of bodies.
"""

from __future__ import annotations

import gzip
import json
import random
import zlib
from typing import Any

import numpy as np
import pytest

from service.codecs.base import Limits
from service.errors import DecodeError
from tests.fuzz.bodies import EXAMPLES
from tests.service.codecs.infers import NAMES, Memory, binary, declared, inference

LIMITS = Limits(decoded_bytes=1 << 20)
LOGITS, LABELS = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([0, 2])
REGIONS = {"r": np.zeros(64, np.uint8)}
PLACE = {"shared_memory_region": "r", "shared_memory_byte_size": 24, "shared_memory_offset": 8}
OUTPUTS = [{"name": "rank", "parameters": {"binary_data": True}}, {"name": "loss"}]

_TEXT = {
    "id": "x",
    "parameters": {"reduction": "sum", "binary_data_output": True, "priority": 1},
    "inputs": [
        declared("logits", LOGITS, data=LOGITS.tolist()),
        {"data": [0, 2], **declared("labels", LABELS)},
    ],
    "outputs": OUTPUTS,
}
_MIXED = {"inputs": [declared("logits", LOGITS, parameters=PLACE)], "outputs": OUTPUTS}
CORPUS: tuple[tuple[bytes, int | None], ...] = (
    binary({"labels": LABELS, "logits": LOGITS}, id="7", outputs=OUTPUTS),
    binary({"logits": LOGITS, "weight": LOGITS[0]}, parameters={"label_smoothing": 0.1}),
    (json.dumps(_TEXT).encode(), None),
    (json.dumps(_MIXED).encode(), None),
)
TOKENS = (
    *rb"""[ ] { } , : " \ - 0 1 6 24 -1 2.0 1e3 1e999 NaN -Infinity null true false "a" [] {} ,[ ],
    "data":[1,2], "shape":[2,3], "datatype":"FP16", "datatype":"BYTES", "parameters":{},
    "id":"\u00e9" "binary_data_size":24, "shared_memory_region":"r", "name":"labels", "outputs":[],
    4294967296
    """.split(),
    *(b" ", b"\n", b"\x00", b"\xff", b"\xc3\xa9", b"9" * 19, b"9" * 25, bytes(8)),
)


def mutated(rng: random.Random) -> tuple[bytes, int | None]:
    """A body of the corpus with some changes, and what its header says of its JSON."""
    original, header = rng.choice(CORPUS)
    body = bytearray(original)
    end = len(body) if header is None else header
    for _ in range(rng.choice((0, 1, 1, 2, 3, 6))):
        at = rng.randrange(end + 1)
        to = min(end, at + rng.choice((0, 1, 1, 2, 5, 30)))
        piece = rng.choice((b"", rng.choice(TOKENS), bytes(body[at:to]) * 2, rng.randbytes(1)))
        body[at:to] = piece
        end += len(piece) - (to - at)
    if header is not None:
        header = max(1, end + rng.choice((0, 0, 0, 0, 0, 0, 1, -1, 10**6)))
    if rng.random() < 0.1:
        del body[rng.randrange(len(body) + 1) :]
    if rng.random() < 0.1:
        body += rng.randbytes(rng.choice((1, 8, 100)))
    return bytes(body), header


def outcome(body: bytes, header: int | None, coding: str | None = None) -> Any:
    """Decoded tensors, as bytes that can be compared; None where the body is rightly refused."""
    made = inference(header, coding=coding, memory=Memory(REGIONS), limits=LIMITS)
    view = memoryview(bytearray(body))
    try:
        for end in (0, 1, len(body) // 2, len(body)):
            at = made.aligned_at(body[:end])
            ready = made.ready_at(view[:end])
            assert at is None or at >= (header or 0)
            assert ready is None or ready == at
        made.at_once(view)
        # As the exchange does, before memory is taken.
        promised = made.decoded_bytes(view)
        message = made.decode(view, NAMES, LIMITS)
    except DecodeError as error:
        return None if error.message.isascii() and 0 < len(error.message) < 2000 else error
    except KeyError:
        return None  # no such region: the test's own memory says so
    taken = sum(
        array.nbytes
        for array in message.tensors.values()
        if not np.may_share_memory(array, np.frombuffer(view, np.uint8))
        and not np.may_share_memory(array, REGIONS["r"])
    )
    assert taken <= promised
    assert message.tensors.keys() <= NAMES
    tensors = [(name, a.dtype, a.shape, a.tobytes()) for name, a in message.tensors.items()]
    return tensors, repr(message.options)


@pytest.mark.parametrize("part", range(4))
def test_random_changes_are_decoded_or_refused_alike(part: int) -> None:
    rng = random.Random(part)
    decoded = 0
    for number in range(EXAMPLES // 4):
        body, header = mutated(rng)
        found = outcome(body, header)
        again = outcome(b" " + body, None if header is None else header + 1)
        assert found == again, (part, number, body, header)
        decoded += found is not None
        if number % 10 == 0 and len(body) >= (header or 0):
            assert outcome(gzip.compress(body, 1), header, "gzip") == found
            assert outcome(zlib.compress(body, 1), header, "deflate") == found
    # A fuzzer whose every body is refused tests little.
    assert decoded > EXAMPLES // 40


def test_random_bytes_are_no_stream() -> None:
    rng = random.Random(9)
    for _ in range(EXAMPLES // 20):
        body, header = rng.choice(CORPUS)
        stream = bytearray(gzip.compress(body, 1))
        stream[rng.randrange(len(stream))] = rng.randrange(256)
        outcome(bytes(stream), header, "gzip")
