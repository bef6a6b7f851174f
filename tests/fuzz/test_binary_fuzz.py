"""The binary readers on damaged and on hostile bodies.

Whatever the bytes, a reader returns a message or raises ``DecodeError``. What it accepts, the
reference reader accepts as well, with equal arrays: the official safetensors library, and NumPy
without pickle. NumPy has no bfloat16 and reads its elements as two opaque bytes; it is also told
to read headers as long as ours (its own limit is 10,000 characters).

An example is a function of its format and number, so a failure names all that repeats it.
LOSSD_FUZZ_EXAMPLES is the number of examples a format.
"""

from __future__ import annotations

import io
import json
import os
import random
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors

from kernels import dtypes
from service.codecs import npy, npz, safetensors_format
from service.codecs.base import DecodeError, Limits, Message
from tests.service.codecs import (
    samples,
    test_npy,
    test_npz,
    test_safetensors_format,
    zips,
)

EXAMPLES = int(os.environ.get("LOSSD_FUZZ_EXAMPLES", "20000"))
LIMITS = Limits(decoded_bytes=1 << 14)

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 20, 24, 45, 64, 127, 128, 152, 255, 256, 65535, 65536)
LARGE = (2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def _number(rng: random.Random) -> int:
    return rng.choice(NUMBERS) if rng.random() < 0.7 else rng.choice(LARGE)


def _mutated(rng: random.Random, body: bytes) -> bytes:
    """``body`` after one to three accidents."""
    out = bytearray(body)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice((1, 2, 4, 8, 30, 100)))
        match rng.randrange(7):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at:end] = rng.randbytes(end - at)
            case 2:
                del out[at:end]
            case 3:
                out[at:at] = out[at:end]
            case 4:
                del out[at:]
            case 5:
                width = rng.choice((1, 2, 4, 8))
                out[at : at + width] = (_number(rng) % 256**width).to_bytes(width, "little")
            case 6:
                out += rng.randbytes(rng.choice((1, 2, 22)))
    return bytes(out)


def _shape(rng: random.Random) -> list[int]:
    return [rng.randint(0 if rng.random() < 0.1 else 1, 3) for _ in range(rng.randint(0, 4))]


def _safetensors(rng: random.Random) -> bytes:
    """A header that says one or two things wrong, or nothing, about the tensors after it."""
    names = rng.sample(["logits", "labels", "weight"], rng.randint(0, 3))
    arrays = {name: samples.sample(rng.choice(dtypes.ALL), _shape(rng)) for name in names}
    body = safetensors_format.encode(arrays)
    start = 8 + int.from_bytes(body[:8], "little")
    header: dict[str, Any] = json.loads(body[8:start])
    if rng.random() < 0.3:
        header["__metadata__"] = {"reduction": rng.choice(("sum", "sum", "\ud800", 7, []))}
    for name in names[: rng.randint(0, 2)]:
        entry = header[name]
        match rng.randrange(6):
            case 0:
                entry["data_offsets"][rng.randrange(2)] = _number(rng)
            case 1:
                entry["shape"].insert(0, rng.choice((_number(rng), 1, True, None, -1, 1.5, [])))
            case 2:
                entry["shape"].reverse()
            case 3:
                known = rng.choice(list(dtypes.BY_SAFETENSORS))
                entry["dtype"] = rng.choice((known, known, "BOOL", "F8_E4M3", 3, None))
            case 4:
                entry[rng.choice(("dtype", "shape", "data_offsets", "x"))] = rng.choice((0, [], ""))
            case 5:
                header[rng.choice(("evil", "weight", "logits\0"))] = dict(entry)
    text = json.dumps(header)
    if rng.random() < 0.1 and len(text) > 2:
        text = text[:-1] + "," + text[1:]
    return test_safetensors_format.packed(text, body[start:])


def _npy(rng: random.Random, wrongness: float = 0.4) -> bytes:
    """A header of right and wrong words around the data of an array."""
    row = rng.choice(dtypes.ALL)
    shape = tuple(_shape(rng))
    data = samples.sample(row, shape).tobytes()
    words = {
        "descr": repr(rng.choice(row.npy)),
        "fortran_order": rng.choice(("True", "False")),
        "shape": repr(shape),
    }
    wrong = {
        "descr": ("'|O'", "'>f4'", "'<f4'", "'|b1'", "[('a', '<f4')]", "7", "'<V4'"),
        "fortran_order": ("0", "None", "'True'", "()"),
        "shape": ("(True,)", "(-1,)", "(2)", "[2]", "(2L,)", "(4294967296, 4294967296)", "(,)"),
    }
    keys = list(words)
    if rng.random() < wrongness:
        key = rng.choice(keys)
        words[key] = rng.choice(wrong[key])
    if rng.random() < 0.2:
        rng.shuffle(keys)
    if rng.random() < wrongness / 4:
        keys.append(rng.choice(keys))
    text = "{" + ", ".join(f"'{key}': {words[key]}" for key in keys) + rng.choice((", }", "}"))
    if rng.random() < wrongness / 4:
        data += b"\0"
    version = bytes((rng.choice((1, 1, 2, 3)) if rng.random() > wrongness / 4 else 4, 0))
    return test_npy.packed(text + " " * rng.randrange(64) + "\n", data, version)


def _npz(rng: random.Random) -> bytes:
    """An archive with a field or two that lie, whose members may be wrong as well."""
    parts = []
    for name in rng.sample(["logits", "labels", "weight"], rng.randint(1, 3)):
        data = _npy(rng, wrongness=0.1)
        if rng.random() < 0.1:
            data = _mutated(rng, data)
        part = zips.Part(f"{name}.npy", data, method=rng.choice((0, 8)))
        sizes = (len(part.data), len(part.stored))
        if rng.random() < 0.3:
            part.local_extra = zips.zip64(*sizes)
        if rng.random() < 0.2:
            part.flags = 8
            part.trailer = zips.descriptor(part, rng.choice("LQ"), rng.choice((b"", b"PK\7\10")))
        parts.append(part)
    if rng.random() < 0.05:
        parts.append(parts[0])
    part = rng.choice(parts)
    fields = ("flags", "method", "crc", "stored", "size", "name", "extra", "version")
    lie = {rng.choice(fields): _number(rng) % 2**16}
    end: dict[str, int | bytes] = {}
    match rng.randrange(12):
        case 0:
            part.local = lie
        case 1:
            part.central = lie
        case 2:
            part.local = part.central = lie
        case 3:
            end = {rng.choice(("disk", "here", "count", "size", "start", "comment")): 1}
        case 4:
            part.trailer += rng.randbytes(rng.choice((1, 12, 16)))
        case 5:
            part.central = {"start": _number(rng) % 2**32}
        case _:
            pass
    end64: dict[str, int | bytes] | None = {} if rng.random() < 0.1 else None
    return zips.archive(parts, end=end, end64=end64)


def _decode_npy(body: memoryview, names: frozenset[str], limits: Limits) -> Message:
    return Message({"a": npy.decode(body, limits, where="a.npy")}, {})


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
    return {
        name: np.ndarray(
            tuple(entry["shape"]),
            dtypes.BY_SAFETENSORS[entry["dtype"]].numpy,
            buffer=bytes(entry["data"]),
        )
        for name, entry in read
    }


_Decode = Callable[[memoryview, frozenset[str], Limits], Message]
_Format = tuple[
    _Decode,
    Callable[[bytes], "int | None"],
    Callable[[random.Random], bytes],
    Callable[[bytes], dict[str, Any]],
    list[bytes],
]


def _corpus(*bodies: bytes) -> list[bytes]:
    return [body for body in bodies if 0 < len(body) < 4096]


FORMATS: dict[str, _Format] = {
    "safetensors": (
        safetensors_format.decode,
        safetensors_format.CODEC.first_tensor_at,
        _safetensors,
        _official,
        _corpus(*(body for body, _ in test_safetensors_format.REFUSED.values())),
    ),
    "npy": (
        _decode_npy,
        npy.data_start,
        _npy,
        _numpy_npy,
        _corpus(*(body for body, _ in test_npy.REFUSED.values())),
    ),
    "npz": (
        npz.decode,
        npz.first_tensor_at,
        _npz,
        _numpy_npz,
        _corpus(*test_npz.ACCEPTED.values(), *(body for body, _ in test_npz.REFUSED.values())),
    ),
}


def _example(name: str, number: int) -> bytes:
    """The body of an example: half are made from parts, half of the rest are known ones damaged."""
    _, _, make, _, corpus = FORMATS[name]
    if number < len(corpus):
        return corpus[number]
    rng = random.Random(number)
    choice = rng.randrange(4)
    if choice == 0:
        return _mutated(rng, rng.choice(corpus))
    return _mutated(rng, make(rng)) if choice == 1 else make(rng)


def _check_accepted(name: str, body: bytes, tensors: dict[str, samples.Array]) -> None:
    """The reference reads the same arrays, and the first of them is where it was said to be."""
    _, first_tensor_at, _, reference, _ = FORMATS[name]
    expected = reference(body)
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
    at = first_tensor_at(body)
    assert at is None or not starts or at <= min(starts)
    if len(starts) == len(tensors) > 0:
        assert at == min(starts)


def _outcome(decode: _Decode, body: bytes) -> Message | DecodeError:
    try:
        return decode(memoryview(body), samples.NAMES, LIMITS)
    except DecodeError as error:
        return error


@pytest.mark.parametrize("name", FORMATS)
def test_reads_what_the_reference_reads_and_refuses_the_rest(name: str) -> None:
    decode, first_tensor_at, *_ = FORMATS[name]
    accepted = 0
    for number in range(EXAMPLES):
        body = _example(name, number)
        try:
            first_tensor_at(body[: number % 300])
            outcome = _outcome(decode, body)
            if isinstance(outcome, DecodeError):
                text = f"{outcome.message}{outcome.where}"
                assert text.isprintable()
                assert text.isascii()
            else:
                _check_accepted(name, body, outcome.tensors)
                accepted += 1
        except Exception as error:
            error.add_note(f"example {number} of {name}: {body!r}")
            raise
    # Either alone would prove nothing.
    assert 0.05 * EXAMPLES < accepted < 0.95 * EXAMPLES


@pytest.mark.parametrize("name", FORMATS)
def test_allocates_in_proportion(name: str) -> None:
    decode, *_ = FORMATS[name]
    for number in range(0, EXAMPLES, 50):
        body = _example(name, number)
        tracemalloc.start()
        _outcome(decode, body)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * LIMITS.decoded_bytes + 20 * len(body) + (1 << 17), number


def test_a_stream_of_any_deflate_bits_is_inflated_or_refused() -> None:
    """What zlib makes of random bits at once, is made of them in steps as well."""
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
            npz.decode(memoryview(zips.archive([part])), samples.NAMES, LIMITS)
        # The reader gets as far as the .npy file inside, where that is what the stream holds.
        reached = "must start with the magic string" in caught.value.message
        assert reached == whole
        inflated += whole
    assert inflated
