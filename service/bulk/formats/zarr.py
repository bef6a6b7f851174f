"""Shards in Zarr groups, versions 3 and 2: an array a tensor, read by chunks.

A chunk that is not there stands for the fill value, by the format, and writers leave out those that
hold nothing else; a chunk that was lost looks the same. Of logits, and of labels of one axis, it is
refused: rows of equal logits say nothing, and labels of many rows are seldom one class. Labels of
more axes are images, parts of which are background.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np

from service.bulk import files
from service.bulk.extras import extra
from service.bulk.formats.base import DTYPE_NOTE, Held, Library, Tensor, dtype_row, texts
from service.codecs.base import Array, shown
from service.errors import DecodeError


def opened(location: str, wanted: Mapping[str, str]) -> Held:
    """Open the group at ``location``, whose attributes are options."""
    with extra("bulk", f"{location}: Zarr"):
        import zarr
    if not files.is_url(location):
        os.stat(location)
    with files.library_errors("the group"):
        node = zarr.open(location, mode="r")
    if not isinstance(node, zarr.Group):
        raise DecodeError("it is one array: a shard is a group of arrays, logits and labels")
    tensors: dict[str, Tensor] = {}
    for ours, name in wanted.items():
        where = f"array {shown(name)}"
        with files.library_errors(where):
            if name in node:
                tensors[ours] = _tensor(location, node[name], ours, where)
    with files.library_errors("the group"):
        options = texts(node.attrs)
        whole = {"logits", "labels"} <= tensors.keys()
        others = [] if whole else _others(node, wanted)
    return Held(tensors, others, options)


def _others(group: Any, wanted: Mapping[str, str]) -> list[str]:
    """Names in ``group`` that are not ``wanted``, for the error of what is missing."""
    with warnings.catch_warnings():  # it warns of every file that is not Zarr's
        warnings.simplefilter("ignore")
        return [name for name in group if name not in wanted.values()]


def _tensor(location: str, array: Any, ours: str, where: str) -> Tensor:
    import zarr

    if not isinstance(array, zarr.Array):
        raise DecodeError(f"{where} is no array but a group: give the path of one in it")
    row = dtype_row(ours, np.dtype(array.dtype), array.attrs.get(DTYPE_NOTE), where)

    def rows(first: int, stop: int) -> Array:
        with files.library_errors(f"{where}, rows {first:,} to {stop:,}"):
            found = np.asarray(array[first:stop])
            if ours == "logits" or (ours == "labels" and array.ndim == 1):
                _refuse_lost(location, array, found, first, where)
            return found

    step = _extents(array)[0] if array.ndim else 0
    starts = range(0, array.shape[0], step) if step else ()
    return Library(row, array.shape, starts, rows)


def _extents(array: Any) -> tuple[int, ...]:
    """Extents of what is stored under a name: of a shard of chunks, or a chunk."""
    extents: tuple[int, ...] = array.shards or array.chunks
    return extents


def _refuse_lost(location: str, array: Any, found: Array, first: int, where: str) -> None:
    """Refuse ``found``, the rows from ``first``, if a chunk with rows of it is not there."""
    for begins, corner in _corners(array, first, len(found)):
        # Only a chunk that begins with the fill value may be none.
        value, fill = found[corner], array.fill_value
        if value != fill and value == value:
            continue
        key = array.metadata.encode_chunk_key(begins)
        place = "/".join(part for part in (location.rstrip("/"), array.path, key) if part)
        if not _exists(place):
            raise DecodeError(
                f"{where}: its chunk {key} is not there, from row {first + corner[0]:,} on; if all "
                "of it is the fill value, write it with write_empty_chunks=True"
            )


def _corners(array: Any, first: int, rows: int) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Indices of the chunks that have rows of ``first`` and on, and of an element of each there."""
    extents = _extents(array)
    last = first + rows - 1
    spans = [range(first // extents[0], last // extents[0] + 1)] if rows else [range(0)]
    spans += [
        range(-(-length // extent))
        for length, extent in zip(array.shape[1:], extents[1:], strict=True)
    ]
    for index in product(*spans):
        begin = max(index[0] * extents[0], first) - first
        inner = (at * extent for at, extent in zip(index[1:], extents[1:], strict=True))
        yield index, (begin, *inner)


def _exists(place: str) -> bool:
    if not files.is_url(place):
        return os.path.exists(place)
    system, path = files.file_system(place)
    return bool(system.exists(path))
