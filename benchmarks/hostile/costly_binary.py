"""Costly npz archives and safetensors."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.hostile.costly import SIZE, Attack, made, repeated, v1
from benchmarks.problems import Array
from service.codecs import npz
from service.codecs import safetensors as safetensors_codec


def _npz(logits: Array) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, logits=logits)
    return file.getvalue()


def _npz_of_names(count: int, size: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(f"{number}.npy".rjust(size, "x")), b"")
    return file.getvalue()


def _npz_at_the_limit(size: int) -> bytes:
    """Archive whose logits inflate sixteenfold, as a stored member before them permits."""
    file = io.BytesIO(npz.CODEC.encode({"weight": np.zeros(size // 9)}))
    with zipfile.ZipFile(file, "a") as archive:
        with archive.open(_deflated("logits.npy"), "w") as member:
            np.save(member, np.zeros((16, size // 9), np.float32))
        with archive.open(_deflated("labels.npy"), "w") as member:
            np.save(member, np.zeros(16, np.int64))
    return file.getvalue()


def _deflated(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _tensors(**arrays: Array) -> bytes:
    return safetensors_codec.encode(arrays)


def _of_notes(notes: dict[str, str]) -> bytes:
    entry = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}
    label = {"dtype": "I64", "shape": [1], "data_offsets": [4, 12]}
    return _safetensors({"logits": entry, "labels": label, "__metadata__": notes}, bytes(12))


def _empty(extent: int) -> bytes:
    entry = {"dtype": "F32", "shape": [extent, 0], "data_offsets": [0, 0]}
    return _safetensors({"logits": entry})


def _nan(count: int) -> bytes:
    return _tensors(logits=np.full((count, 1), np.nan, np.float32), labels=np.zeros(count, int))


def binary_attacks() -> Iterable[Attack]:
    for name, make in {
        "15,000 members": lambda: _npz_of_names(15_000, 5),
        "members with long names": lambda: _npz_of_names(40, 10_000),
        "256 MB of zeros": lambda: _npz(np.zeros((1, 2**26), np.float32)),
        "1 MB of zeros": lambda: _npz(np.zeros((1, 2**18), np.float32)),
        "sixteenfold": lambda: _npz_at_the_limit(SIZE),
    }.items():
        yield Attack("npz", name, partial(made, make, v1, kind="x-npz"))
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    for name, make in {
        "a header of escapes": lambda: _safetensors(b'{"' + b"\\u0041" * 160_000 + b'":0}'),
        "400 tensors": lambda: _safetensors({f"t{number}": entry for number in range(400)}),
        "4,000 notes": lambda: _of_notes({f"n{number}": "" for number in range(4000)}),
        "outputs of 1 MB": lambda: _of_notes({"outputs": "loss" * 200_000}),
        "digits for an option": lambda: _of_notes({"class_axis": "1" * 900_000}),
        "a deep header": lambda: _safetensors(b'{"a":' + b"[" * 4000),
        "a header of lists": lambda: _safetensors(b'{"a":[' + repeated(b"[]", 6000) + b"]}"),
        "extents without elements": lambda: _empty(2**28),
        "NaN, at once": lambda: _nan(2**16),
        "NaN": lambda: _nan(80_000),
    }.items():
        yield Attack("safetensors", name, partial(made, make, v1, kind="x-safetensors"))
