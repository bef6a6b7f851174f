"""Shards of .npy files: a file a tensor, mapped, which their names keep together.

The shard is named by the file of its logits. The others lie where the name of the logits in its
path, the last time that it stands there as a word, is their own: `logits-007.npy` and
`labels-007.npy`; `007/logits.npy` and `007/labels.npy`; `logits/007.npy` and `labels/007.npy`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

from service.bulk import files
from service.bulk.files import Mapped, Source
from service.bulk.formats import sparse
from service.bulk.formats.base import OWN, Columns, Flat, Held, Tensor
from service.codecs import npy
from service.codecs.base import check_size
from service.codecs.npy import Layout
from service.errors import DecodeError

# Bytes that hold the header of any .npy file.
HEAD = npy.PREFIX + npy.HEADER_LIMIT


def opened(location: str, wanted: Mapping[str, str]) -> Held:
    """Open the shard whose logits are the file at ``location``."""
    sources: dict[str, Source] = {}

    def close() -> None:
        for source in sources.values():
            source.close()

    tensors = {}
    try:
        for ours, path in together(location, wanted).items():
            sources[ours] = source = files.opened(path)
            where = os.path.basename(path)
            tensors[ours] = tensor(source, 0, source.size, where, ours)
    except BaseException:
        close()
        raise
    return Held(tensors, close=close)


def together(location: str, wanted: Mapping[str, str]) -> dict[str, str]:
    """Locations of the shard's files that exist, by our names of their tensors.

    Raises ``DecodeError`` if the file's name does not tell that it has the logits.
    """
    beside = named(location, wanted)
    if beside is None:
        raise DecodeError(
            f"a shard of .npy files is named by its logits, so the word {wanted['logits']} has to "
            "stand in its path: logits-007.npy beside labels-007.npy, or 007/logits.npy and "
            "007/labels.npy"
        )
    exists = _existence(location)
    found = {ours: path for ours, path in beside.items() if ours == "logits" or exists(path)}
    if not {sparse.CLASSES, sparse.LOG_PROBS} <= found.keys():
        found["labels"] = beside["labels"]  # not there is an error that names it
    return found


def named(location: str, wanted: Mapping[str, str]) -> dict[str, str] | None:
    """Locations that the shard's files would have; None if ``location`` is not that of logits."""
    words = list(re.finditer(rf"(?<![^\W_]){re.escape(wanted['logits'])}(?![^\W_])", location))
    if not words:
        return None
    begin, end = words[-1].span()
    return {ours: location[:begin] + word + location[end:] for ours, word in wanted.items()}


def _existence(location: str) -> Callable[[str], bool]:
    if not files.is_url(location):
        return os.path.exists
    system, _ = files.file_system(location)

    def exists(url: str) -> bool:
        with files.library_errors(url):
            return bool(system.exists(files.file_system(url)[1]))

    return exists


def tensor(source: Source, at: int, size: int, where: str, name: str) -> Tensor:
    """Tensor ``name`` of the .npy file ``where``, ``size`` bytes at offset ``at`` of ``source``."""
    begun = source.read(at, at + min(size, HEAD))
    found = checked_layout(begun, size, where, name)
    shape, start = tuple(found.shape), at + found.start
    if not found.fortran or len(shape) < 2:
        return Flat(source, start, found.row, shape)
    if not isinstance(source, Mapped):
        raise DecodeError(
            f"{where} is in Fortran order, which is read by rows from a disk alone: save "
            "numpy.ascontiguousarray of it, or copy it to a disk",
            where=where,
        )
    return Columns(source, start, found.row, shape)


def checked_layout(begun: memoryview, size: int, where: str, name: str) -> Layout:
    """Read the header of a .npy file of ``size`` bytes, which have to be as many as it says."""
    found = npy.layout(begun, size, where, name)
    check_size(size - found.start, found.row, found.shape, OWN, where=where)
    return found
