"""Shards in HDF5 files: a dataset a tensor; mapped where it lies in one piece, else by chunks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

from service.bulk import files
from service.bulk.extras import extra
from service.bulk.files import Source
from service.bulk.formats.base import DTYPE_NOTE, Flat, Held, Library, Tensor, dtype_row, texts
from service.codecs.base import Array, shown
from service.errors import DecodeError


def opened(location: str, wanted: Mapping[str, str]) -> Held:
    """Open the file at ``location``, whose root's attributes are options."""
    with extra("bulk", f"{location}: HDF5"):
        import h5py
    source = files.opened(location)
    try:
        with files.library_errors("the file"):
            # A lock would need a place that can be written to.
            file = h5py.File(source.handle(), "r", locking=False)
    except BaseException:
        source.close()
        raise

    def close() -> None:
        with contextlib.suppress(Exception):
            file.close()
        source.close()

    try:
        tensors: dict[str, Tensor] = {}
        for ours, name in wanted.items():
            with files.library_errors(f"dataset {shown(name)}"):
                if name in file:
                    tensors[ours] = _tensor(file, source, file[name], ours, name)
        with files.library_errors("the root"):
            others = [name for name in file if name not in wanted.values()]
            options = texts(file.attrs)
    except BaseException:
        close()
        raise
    return Held(tensors, others, options, close)


def _tensor(file: Any, source: Source, dataset: Any, ours: str, name: str) -> Tensor:
    import h5py

    where = f"dataset {shown(name)}"
    if not isinstance(dataset, h5py.Dataset):
        raise DecodeError(f"{where} is no dataset but a group: give the path of one in it")
    if dataset.shape is None:
        raise DecodeError(f"{where} is empty: it has no shape")
    row = dtype_row(ours, dataset.dtype, dataset.attrs.get(DTYPE_NOTE), where)
    at = _place(file, source, dataset)
    if at is not None and row.numpy.itemsize == dataset.dtype.itemsize and _is_little(dataset):
        return Flat(source, at, row, dataset.shape)
    _refuse_unwritten(dataset, where)

    def rows(first: int, stop: int) -> Array:
        with files.library_errors(f"{where}, rows {first:,} to {stop:,}"):
            found: Array = dataset[first:stop]
            return found

    step = dataset.chunks[0] if dataset.chunks else 0
    starts = range(0, dataset.shape[0], step) if step else ()
    return Library(row, dataset.shape, starts, rows)


def _is_little(dataset: Any) -> bool:
    return bool(dataset.dtype == dataset.dtype.newbyteorder("<"))


def _place(file: Any, source: Source, dataset: Any) -> int | None:
    """Offset of the dataset's bytes in the file, if they lie there in one piece as they are."""
    plain = dataset.chunks is None and not dataset.is_virtual and dataset.external is None
    if not plain or file.userblock_size or files.is_url(source.location):
        return None
    at = dataset.id.get_offset()
    if at is None or not dataset.size:
        return None
    # A file that was cut, or an offset of nowhere.
    return int(at) if at + dataset.size * dataset.dtype.itemsize <= source.size else None


def _refuse_unwritten(dataset: Any, where: str) -> None:
    """Refuse what was never written, which the library gives as zeros: no writer leaves it out."""
    if dataset.is_virtual or dataset.external is not None:
        return
    extents = dataset.chunks or dataset.shape
    wanted = math.prod(
        -(-extent // chunk) if chunk else 0
        for extent, chunk in zip(dataset.shape, extents, strict=True)
    )
    written = dataset.id.get_num_chunks() if dataset.chunks else dataset.id.get_storage_size()
    if written < wanted:
        missing = f"{wanted - written:,} of its {wanted:,} chunks were" if dataset.chunks else "was"
        raise DecodeError(f"{where}: {missing} never written, and would be read as zeros")
