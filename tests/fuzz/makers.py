"""Bodies made from parts, a field or two of which lie, and accidents that befall any body."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from kernels import dtypes
from service.codecs import safetensors as safetensors_codec
from tests.service.codecs import npys, safetensors_bodies, samples, zips

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 20, 24, 45, 64, 127, 128, 152, 255, 256, 65535, 65536)
LARGE = (2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def number(rng: random.Random) -> int:
    return rng.choice(NUMBERS) if rng.random() < 0.7 else rng.choice(LARGE)


def mutated(rng: random.Random, body: bytes) -> bytes:
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
                out[at : at + width] = (number(rng) % 256**width).to_bytes(width, "little")
            case 6:
                out += rng.randbytes(rng.choice((1, 2, 22)))
    return bytes(out)


def shape(rng: random.Random) -> list[int]:
    return [rng.randint(0 if rng.random() < 0.1 else 1, 3) for _ in range(rng.randint(0, 4))]


def safetensors(rng: random.Random) -> bytes:
    """A header that says one or two things wrong, or nothing, about the tensors after it."""
    names = rng.sample(["logits", "labels", "weight"], rng.randint(0, 3))
    arrays = {name: samples.sample(rng.choice(dtypes.ALL), shape(rng)) for name in names}
    body = safetensors_codec.encode(arrays)
    start = 8 + int.from_bytes(body[:8], "little")
    header: dict[str, Any] = json.loads(body[8:start])
    if rng.random() < 0.3:
        header["__metadata__"] = {"reduction": rng.choice(("sum", "sum", "\ud800", 7, []))}
    for name in names[: rng.randint(0, 2)]:
        entry = header[name]
        match rng.randrange(6):
            case 0:
                entry["data_offsets"][rng.randrange(2)] = number(rng)
            case 1:
                entry["shape"].insert(0, rng.choice((number(rng), 1, True, None, -1, 1.5, [])))
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
    return safetensors_bodies.packed(text, body[start:])


def npy(rng: random.Random, wrongness: float = 0.4) -> bytes:
    """A header of right and wrong words around the data of an array."""
    row = rng.choice(dtypes.ALL)
    extents = tuple(shape(rng))
    data = samples.sample(row, extents).tobytes()
    words = {
        "descr": repr(rng.choice(row.npy)),
        "fortran_order": rng.choice(("True", "False")),
        "shape": repr(extents),
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
    return npys.packed(text + " " * rng.randrange(64) + "\n", data, version)


def npz(rng: random.Random) -> bytes:
    """An archive with a field or two that lie, whose members may be wrong as well."""
    parts = []
    for name in rng.sample(["logits", "labels", "weight"], rng.randint(1, 3)):
        data = npy(rng, wrongness=0.1)
        if rng.random() < 0.1:
            data = mutated(rng, data)
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
    lie = {rng.choice(fields): number(rng) % 2**16}
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
            part.central = {"start": number(rng) % 2**32}
        case _:
            pass
    end64: dict[str, int | bytes] | None = {} if rng.random() < 0.1 else None
    return zips.archive(parts, end=end, end64=end64)


def pieces(rng: random.Random, raw: bytes) -> Iterator[bytes]:
    """``raw`` cut in some places, which may be the same: now and then after every byte."""
    every = len(raw) < 1000 and rng.random() < 0.05
    cuts = (
        range(len(raw)) if every else sorted(rng.choices(range(len(raw) + 1), k=rng.randint(1, 9)))
    )
    start = 0
    for end in (*cuts, len(raw)):
        yield raw[start:end]
        start = end
