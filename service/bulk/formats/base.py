"""Interface between formats and shards: tensors that are read by rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from kernels import dtypes
from kernels.dtypes import DType
from service.bulk.files import Mapped, Source
from service.codecs import Limits
from service.codecs.base import Array
from service.errors import DecodeError

# Note beside a tensor of unsigned 16-bit integers that says that they are the bits of bfloat16.
DTYPE_NOTE = "dtype"
# The user's own files may be of any size.
OWN = Limits(decoded_bytes=sys.maxsize, own=True)
# Bytes that are read at a time of what is passed over, or looked through.
STEP = 1 << 24


class Tensor(Protocol):
    """Tensor of a shard: its dtype, its shape, and the rows that may be read.

    ``starts`` are rows at which reading starts cheaply, in order and with 0, or none if any is as
    good.
    """

    @property
    def row(self) -> DType: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def starts(self) -> Sequence[int]: ...

    def read(self, first: int, stop: int) -> Array:
        """Rows [first, stop), which lie in the shape. Raises ``DecodeError``."""
        ...


def _nothing() -> None:
    """Close what needs no closing."""


class Held(NamedTuple):
    """Content of an open shard.

    ``tensors``: those that were wanted, by our names; ``others``: what else it holds, by its own;
    ``options``: those of its metadata, as texts.
    """

    tensors: Mapping[str, Tensor]
    others: Sequence[str] = ()
    options: Mapping[str, str] = {}
    close: Callable[[], None] = _nothing


class Flat:
    """Tensor whose bytes lie in a file as they are, rows one after the other."""

    starts: Sequence[int] = ()

    def __init__(self, source: Source, at: int, row: DType, shape: tuple[int, ...]) -> None:
        self.row, self.shape = row, shape
        self._source, self._at = source, at
        self._row_bytes = int(np.prod(shape[1:], dtype=object)) * row.size

    def read(self, first: int, stop: int) -> Array:
        begin = self._at + first * self._row_bytes
        data = self._source.read(begin, begin + (stop - first) * self._row_bytes)
        return np.ndarray((stop - first, *self.shape[1:]), self.row.numpy, buffer=data)


class Columns:
    """Tensor in a local file in Fortran order, whose rows are a view with a stride."""

    starts: Sequence[int] = ()

    def __init__(self, source: Mapped, at: int, row: DType, shape: tuple[int, ...]) -> None:
        self.row, self.shape = row, shape
        self._source, self._at = source, at
        self._bytes = int(np.prod(shape, dtype=object)) * row.size

    def read(self, first: int, stop: int) -> Array:
        data = self._source.lazily(self._at, self._at + self._bytes)
        whole: Array = np.ndarray(self.shape, self.row.numpy, buffer=data, order="F")
        return whole[first:stop]


class Library:
    """Tensor that a library reads, and converts where it must: of Zarr and HDF5."""

    def __init__(
        self,
        row: DType,
        shape: tuple[int, ...],
        starts: Sequence[int],
        rows: Callable[[int, int], Array],
    ) -> None:
        self.row, self.shape, self.starts = row, shape, starts
        self._rows = rows

    def read(self, first: int, stop: int) -> Array:
        found = np.ascontiguousarray(self._rows(first, stop))
        if found.dtype != self.row.numpy and self.row is not dtypes.BFLOAT16:
            found = found.astype(self.row.numpy)
        return found.view(self.row.numpy)


def dtype_row(name: str, dtype: np.dtype[Any], note: object, member: str) -> DType:
    """Return the row of the dtype table of tensor ``name``, which is ``member`` in its file.

    ``note`` is what the file says beside it of its dtype. Big-endian numbers are those that the
    library converts. Raises ``DecodeError``.
    """
    plain = dtype.newbyteorder("<")
    if isinstance(note, bytes):
        note = note.decode(errors="replace")
    if note == dtypes.BFLOAT16.name and plain == dtypes.BY_NAME["uint16"].numpy:
        return dtypes.BFLOAT16
    if plain == np.bool_:
        return dtypes.BOOL
    found = dtypes.of(np.empty(0, plain))
    if found is None:
        raise DecodeError(
            f"{member}: its elements are {dtype}, but {name} is of {', '.join(dtypes.BY_NAME)}"
            f" (bfloat16 as uint16 with the note {DTYPE_NOTE}=bfloat16)",
            where=member,
        )
    return found


def texts(notes: Mapping[str, Any]) -> dict[str, str]:
    """Return those of ``notes``, a library's attributes, that are one value each, as texts."""
    found = {}
    for name, value in notes.items():
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(plain, bytes):
            plain = plain.decode(errors="replace")
        if isinstance(plain, bool):
            plain = str(plain).lower()
        if isinstance(plain, str | int | float):
            found[name] = str(plain)
    return found
