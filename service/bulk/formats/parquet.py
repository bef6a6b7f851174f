"""Shards in .parquet files: a column a tensor, a row of the table a row.

A column of numbers is a tensor of one axis; one of fixed-size lists, of lists of one length, or of
`arrow.fixed_shape_tensor` has more. Rows are decoded in batches, from the row groups that have
them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels.dtypes import DType
from service.bulk import files
from service.bulk.extras import extra
from service.bulk.formats.base import DTYPE_NOTE, Held, Tensor, dtype_row
from service.codecs.base import Array, shown
from service.errors import DecodeError

# Bytes of a batch, and of what is read of a file at a time. While a batch is decoded, Arrow holds
# it several times; larger ones are no faster.
_BATCH = 1 << 22

# Schema notes of other writers, long and never options.
_NOT_OPTIONS = {b"ARROW:schema", b"pandas", b"huggingface"}


def opened(location: str, wanted: Mapping[str, str]) -> Held:
    """Open the table at ``location``, whose schema's metadata are options."""
    with extra("bulk", f"{location}: Parquet"):
        import pyarrow.parquet as parquet
    source = files.opened(location)
    try:
        with files.library_errors("the table"):
            # Neither all columns of a row group nor a whole column are read ahead into memory. Nor
            # is the file mapped: one that is cut meanwhile would end the process.
            table = parquet.ParquetFile(
                source.handle(),
                memory_map=False,
                buffer_size=_BATCH,
                pre_buffer=False,
                page_checksum_verification=True,
            )
            schema, groups = table.schema_arrow, _groups(table.metadata)

        def close() -> None:
            with contextlib.suppress(Exception):
                table.close(force=True)
            source.close()

    except BaseException:
        source.close()
        raise
    try:
        tensors: dict[str, Tensor] = {}
        for ours, name in wanted.items():
            if name not in schema.names:
                continue
            if ours == "weight":
                raise DecodeError(
                    f"column {shown(name)}: weight has one value a class, and a column one a row; "
                    f"if it is sample_weight, name the column so",
                    where=name,
                )
            with files.library_errors(f"column {shown(name)}"):
                tensors[ours] = _Column(table, groups, schema.field(name), ours)
    except BaseException:
        close()
        raise
    others = [name for name in schema.names if name not in wanted.values()]
    notes = {} if schema.metadata is None else schema.metadata
    options = {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in notes.items()
        if key not in _NOT_OPTIONS
    }
    return Held(tensors, others, options, close)


def _groups(metadata: Any) -> list[int]:
    """First rows of the row groups, and the number of rows."""
    counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    return [0, *np.cumsum(counts, dtype=np.int64).tolist()]


class _Layout(NamedTuple):
    """Elements of a column's row: their Arrow type, and how they lie.

    ``lists`` are the lengths of lists in lists, None where any is allowed; ``extents`` are those of
    the tensor that the innermost is, and ``axes`` the order in which these are its axes, of
    `arrow.fixed_shape_tensor`.
    """

    element: Any
    lists: tuple[int | None, ...]
    extents: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None


def _layout(kind: Any) -> _Layout:
    import pyarrow as pa

    lists: list[int | None] = []
    if isinstance(kind, pa.FixedShapeTensorType):
        axes = None if kind.permutation is None else tuple(kind.permutation)
        shape = tuple(kind.shape)
        return _Layout(kind.value_type, (math.prod(shape),), shape, axes)
    if isinstance(kind, pa.ExtensionType | pa.BaseExtensionType):
        kind = kind.storage_type
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_fixed(kind):
        lists.append(kind.list_size if _is_fixed(kind) else None)
        kind = kind.value_type
    return _Layout(kind, tuple(lists))


def _is_fixed(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(kind))


class _Column:
    """Column of a table as a tensor."""

    def __init__(self, table: Any, groups: Sequence[int], field: Any, ours: str) -> None:
        import pyarrow as pa

        self._table, self._groups, self._name = table, groups, field.name
        self._where = f"column {shown(field.name)}"
        element, lists, extents, axes = _layout(field.type)
        note = (field.metadata or {}).get(DTYPE_NOTE.encode())
        known = pa.types.is_integer(element) or pa.types.is_floating(element)
        if not known and not pa.types.is_boolean(element):
            raise DecodeError(
                f"{self._where} is of {field.type}: a tensor is a column of numbers, of fixed-size "
                "lists of them, or of arrow.fixed_shape_tensor",
                where=field.name,
            )
        dtype = np.dtype(element.to_pandas_dtype())
        self.row: DType = dtype_row(ours, dtype, note, self._where)
        self._lists, self._axes = self._measured(lists), axes
        self._extents = self._lists if extents is None else extents
        inner = self._extents if axes is None else tuple(self._extents[axis] for axis in axes)
        self.shape = (groups[-1], *inner)
        self.starts = groups[:-1]

    def _measured(self, lists: Sequence[int | None]) -> tuple[int, ...]:
        """``lists``, those of any length as long as the first row's."""
        value: Any = None
        if None in lists and self._groups[-1]:
            value = next(self._batches(0, 1, 1))[0].as_py()
        measured = []
        for extent in lists:
            length = len(value) if value else 0
            measured.append(length if extent is None else extent)
            value = value[0] if length else None
        return tuple(measured)

    def read(self, first: int, stop: int) -> Array:
        out = np.empty((stop - first, *self._extents), self.row.numpy)
        width = max(1, out.nbytes // max(1, len(out)))
        done = 0
        with files.library_errors(f"{self._where}, rows {first:,} to {stop:,}"):
            for batch in self._batches(first, stop, max(1, _BATCH // width)):
                rows = len(batch)
                if done + rows > len(out):
                    break
                flat = self._numbers(batch, first + done)
                out[done : done + rows] = flat.reshape(rows, *self._extents)
                done += rows
            if done != len(out):
                raise DecodeError(
                    f"{self._where} ends after row {first + done:,}, but its row groups declare "
                    f"{self.shape[0]:,} rows",
                    where=self._name,
                )
        if self._axes is None:
            return out
        return out.transpose(0, *(axis + 1 for axis in self._axes))

    def _batches(self, first: int, stop: int, rows: int) -> Any:
        """Arrays of the column's rows [first, stop), of at most ``rows`` each."""
        begins = np.asarray(self._groups)
        lowest = int(np.searchsorted(begins, first, "right")) - 1
        highest = int(np.searchsorted(begins, stop, "left"))
        at = self._groups[lowest]
        batches = self._table.iter_batches(
            rows, row_groups=list(range(lowest, highest)), columns=[self._name]
        )
        for batch in batches:
            column = batch.column(0)
            begin, end = max(first - at, 0), min(stop - at, len(column))
            if begin < end:
                yield column.slice(begin, end - begin)
            at += len(column)
            if at >= stop:
                return

    def _numbers(self, array: Any, at: int) -> Array:
        """Elements of ``array``, whose first row is row ``at``, as they lie."""
        import pyarrow as pa

        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        each = 1  # lists of this level for each row
        for extent in self._lists:
            self._refuse_null(array, at, each)
            if not _is_fixed(array.type):
                lengths = array.value_lengths().to_numpy(zero_copy_only=False)
                wrong = np.flatnonzero(lengths != extent)
                if wrong.size:
                    raise DecodeError(
                        f"{self._where}, row {at + int(wrong[0]) // each:,}: a list of "
                        f"{int(lengths[wrong[0]]):,}, but that of row 0 is of {extent:,}",
                        where=self._name,
                    )
            array = array.flatten()
            each *= extent or 1
        self._refuse_null(array, at, each)
        found: Array = array.to_numpy(zero_copy_only=False)
        wanted = self.row.numpy
        return found.view(wanted) if found.dtype.itemsize == wanted.itemsize else found

    def _refuse_null(self, array: Any, at: int, each: int) -> None:
        if array.null_count:
            index = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
            raise DecodeError(
                f"{self._where}, row {at + index // each:,}: null is no number", where=self._name
            )
