"""The binary readers on damaged and on hostile bodies.

Whatever the bytes, a reader returns a message or raises ``DecodeError``. What it accepts, the
reference reader accepts as well, with equal arrays: the official safetensors library, and NumPy
without pickle. NumPy has no bfloat16 and reads its elements as two opaque bytes; it is also told
to read headers as long as ours (its own limit is 10,000 characters).
"""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors

from kernels import dtypes
from service.codecs import npy, npz
from service.codecs.base import Message
from service.errors import DecodeError
from tests.fuzz.bodies import EXAMPLES, LIMITS, codec, example
from tests.fuzz.makers_v2 import Body
from tests.service.codecs import samples, zips


def _numpy_npy(body: bytes) -> dict[str, Any]:
    file = io.BytesIO(body)
    return {"a": np.load(file, allow_pickle=False, max_header_size=npy.HEADER_LIMIT)}


def _numpy_npz(body: bytes) -> dict[str, Any]:
    if body.startswith(b"PK\5\6"):
        return {}
    limit = npy.HEADER_LIMIT
    with np.load(io.BytesIO(body), allow_pickle=False, max_header_size=limit) as read:
        return dict(read)


def _official(body: bytes) -> dict[str, Any]:
    read = safetensors.deserialize(body)  # type: ignore[no-untyped-call]
    types = {**dtypes.BY_SAFETENSORS, dtypes.BOOL.safetensors: dtypes.BOOL}
    return {
        name: np.ndarray(
            tuple(entry["shape"]),
            types[entry["dtype"]].numpy,
            buffer=bytes(entry["data"]),
        )
        for name, entry in read
    }


# What reads each format besides us.
REFERENCES: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "safetensors": _official,
    "npy": _numpy_npy,
    "npz": _numpy_npz,
}


def _check_accepted(name: str, body: bytes, tensors: dict[str, samples.Array]) -> None:
    """The reference reads the same arrays, and the first of them is where it was said to be."""
    expected = REFERENCES[name](body)
    assert tensors.keys() == expected.keys()
    for key, array in tensors.items():
        if array.dtype == dtypes.BFLOAT16.numpy:
            expected[key] = expected[key].view(array.dtype)
        assert samples.same(array, expected[key])
    whole = np.frombuffer(body, np.uint8)
    starts = [
        array.ctypes.data - whole.ctypes.data
        for array in tensors.values()
        if np.shares_memory(array, whole)
    ]
    at = codec(name, Body(body)).aligned_at(body)
    assert at is None or not starts or at <= min(starts)
    if len(starts) == len(tensors) > 0:
        assert at == min(starts)


def _outcome(name: str, body: Body) -> Message | DecodeError:
    try:
        return codec(name, body).decode(memoryview(body.raw), samples.NAMES, LIMITS)
    except DecodeError as error:
        return error


@pytest.mark.parametrize("name", REFERENCES)
def test_reads_what_the_reference_reads_and_refuses_the_rest(name: str) -> None:
    accepted = 0
    for number in range(EXAMPLES):
        body = example(name, number)
        try:
            codec(name, body).aligned_at(body.raw[: number % 300])
            outcome = _outcome(name, body)
            if isinstance(outcome, DecodeError):
                text = f"{outcome.message}{outcome.where}"
                assert text.isprintable()
                assert text.isascii()
            else:
                _check_accepted(name, body.raw, outcome.tensors)
                accepted += 1
        except Exception as error:
            error.add_note(f"example {number} of {name}: {body!r}")
            raise
    # Either alone would prove nothing.
    assert 0.05 * EXAMPLES < accepted < 0.95 * EXAMPLES


def test_a_stream_of_any_deflate_bits_is_inflated_or_refused() -> None:
    """Random bits inflate in steps to the bytes that zlib makes of them at once."""
    inflated = 0
    for number in range(EXAMPLES // 10):
        rng = random.Random(number)
        body = rng.randbytes(rng.randint(1, 40))
        stream = zlib.decompressobj(-15)
        try:
            out = stream.decompress(body, LIMITS.decoded_bytes)
        except zlib.error:
            out = b""
        if number % 2:
            body = body[: len(body) - len(stream.unused_data)]
        whole = stream.eof and (number % 2 == 1 or not stream.unused_data)
        part = zips.Part("logits.npy", out, method=8, body=body)
        with pytest.raises(DecodeError) as caught:
            npz.CODEC.decode(memoryview(zips.archive([part])), samples.NAMES, LIMITS)
        # The reader gets as far as the .npy file inside, where that is what the stream holds.
        reached = "must start with the magic string" in caught.value.message
        assert reached == whole
        inflated += whole
    assert inflated
