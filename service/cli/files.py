"""Tensors of local files, read by the codecs of HTTP bodies, without limits of size."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Sequence
from pathlib import Path

from service.codecs import Limits, Message, npy
from service.codecs.base import numbers, shown
from service.codecs.naming import meant
from service.codecs.npz import CODEC as NPZ
from service.codecs.safetensors import CODEC as SAFETENSORS
from service.errors import DecodeError

SCORED = ("logits", "labels", "weight", "sample_weight", "mask", "segments")

# Names of other tensors that a message lists.
_LISTED = 20
_CODECS = {".npz": NPZ, ".safetensors": SAFETENSORS}

# The user's own files may fill the memory.
_LIMITS = Limits(decoded_bytes=sys.maxsize, own=True)


def read(paths: Sequence[Path]) -> Message:
    """Read the tensors of one .npz or .safetensors file, or of two .npy files: logits, labels.

    They are views of the mapped files wherever the format allows, so a file may be larger than the
    memory. Tensors of other names are passed over, and listed in ``Message.others``. Raises
    ``DecodeError``, and ``OSError`` if a file cannot be read.
    """
    suffixes = [path.suffix.lower() for path in paths]
    if suffixes == [".npy", ".npy"]:
        names = SCORED[:2]
        return Message(
            {
                name: npy.decode(_mapped(path), _LIMITS, where=str(path))
                for name, path in zip(names, paths, strict=True)
            },
            {},
        )
    if len(paths) == 1 and suffixes[0] in _CODECS:
        message = _CODECS[suffixes[0]].decode(_mapped(paths[0]), frozenset(SCORED), _LIMITS)
        for name in SCORED[:2]:
            if name not in message.tensors:
                raise DecodeError(_missing(name, message), where=name)
        tensors = {name: numbers(array) for name, array in message.tensors.items()}
        return message._replace(tensors=tensors)
    raise DecodeError(
        "give one .npz or .safetensors file that holds logits and labels, or two .npy files:"
        " the logits, then the labels"
    )


def _missing(name: str, message: Message) -> str:
    held = [*message.tensors, *([listed(message.others)] if message.others else [])]
    probably = next((other for other in message.others if meant(other, (name,))), None)
    advice = "" if probably is None else f"; rename {shown(probably)} to {name} if that is it"
    return f"holds no {name}, only: {', '.join(held) or 'nothing'}{advice}"


def listed(names: Sequence[str]) -> str:
    """Join ``names`` for a message; of many, the first ``_LISTED``."""
    more = len(names) - _LISTED
    return ", ".join(map(shown, names[:_LISTED])) + (f" and {more:,} more" if more > 0 else "")


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        # An empty file cannot be mapped.
        empty = not file.seek(0, 2)
        return memoryview(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
