"""Formats of shards, by suffix."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from kernels import dtypes
from service.bulk.shard import TENSORS, Shard, TensorSpec
from service.codecs import DecodeError, Limits
from service.codecs.base import Array, numbers
from service.codecs.npz import CODEC as NPZ
from service.codecs.safetensors import CODEC as SAFETENSORS

_CODECS = {".npz": NPZ, ".safetensors": SAFETENSORS}


class _Decoded:
    """Shard whose tensors one of the service's codecs decoded: views of the mapped file."""

    def __init__(self, location: str) -> None:
        import mmap
        import sys

        path = Path(location)
        if path.suffix not in _CODECS:
            raise DecodeError(f"{location}: not a suffix that is read: {', '.join(_CODECS)}")
        try:
            with path.open("rb") as file:
                body = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise DecodeError(f"{location}: {error}") from None
        limits = Limits(decoded_bytes=sys.maxsize, own=True)
        message = _CODECS[path.suffix].decode(body, frozenset(TENSORS), limits)
        self._arrays = {name: numbers(array) for name, array in message.tensors.items()}
        for name in TENSORS[:2]:
            if name not in self._arrays:
                raise DecodeError(f"{location} holds no {name}", where=name)
        self.options: Mapping[str, object] = message.options
        self.starts: tuple[int, ...] = ()
        self.rows = int(self._arrays["logits"].shape[0])
        self.tensors = {
            name: TensorSpec(dtype.name, array.shape)
            for name, array in self._arrays.items()
            if (dtype := dtypes.of(array)) is not None
        }

    def read(self, first: int, stop: int) -> Mapping[str, Array]:
        return {
            name: array if name == "weight" else array[first:stop]
            for name, array in self._arrays.items()
        }

    def close(self) -> None:
        self._arrays = {}


def opened(location: str, names: Mapping[str, str]) -> Shard:
    """Open the shard at ``location``; ``names`` are its tensors', by ours, where they differ.

    Raises ``DecodeError``, ``InvalidInput`` and ``OSError``.
    """
    del names
    return _Decoded(location)


def fingerprint(location: str, names: Mapping[str, str]) -> str:
    """Text that changes when the shard does. Raises ``OSError``."""
    del names
    found = os.stat(location)
    return f"{found.st_size} bytes, modified {found.st_mtime_ns} ns"
