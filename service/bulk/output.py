"""Results of single elements, written to a file a shard, a piece at a time.

Whoever scores a piece puts its results into a folder beside the shard's file to be; whoever drives
the run makes the file of these when all of them are there. Each file appears whole under its name
or not at all, and both steps may be repeated, so a run may end at any moment and go on later.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from service.bulk import files
from service.bulk.extras import extra
from service.bulk.formats import npz
from service.codecs import npy
from service.codecs.base import Array, flat_bytes, row_of
from service.codecs.npz import CODEC, member_at
from service.errors import DecodeError, InvalidOption

# Names of results' files, which no shard's file has by chance.
_MARK = ".per_element"
_SUFFIXES = (".npz", ".parquet")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def places(
    directory: str | PathLike[str], locations: Sequence[str], suffix: str | None = None
) -> dict[str, Path]:
    """Paths in ``directory`` of the files of results of the shards at ``locations``.

    They lie as the shards do below the folder that all of these share. ``suffix`` is .npz or
    .parquet; by default that of the shard, or .npz. Raises ``InvalidOption``, and
    ``MissingPackage`` where Parquet is to be written and cannot.
    """
    # Path has a URL lose one of its slashes.
    if _URL.match(os.fspath(directory)):
        raise InvalidOption(
            f"{directory}: results of elements are written to a folder, not to a URL: mount it",
            field="per_element",
        )
    parts = {location: _parts(location) for location in locations}
    levels = zip(*(path[:-1] for path in parts.values()), strict=False)
    common = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    stems = Counter(_stem(path) for path in parts.values())
    found = {}
    for location, path in parts.items():
        own = files.suffix(location)
        kind = suffix or (own if own in _SUFFIXES else _SUFFIXES[0])
        # Shards of two formats may have the rest of the name in common.
        names = _stem(path) if stems[_stem(path)] == 1 else path
        inner = names[common:]
        found[location] = Path(directory, *inner[:-1], inner[-1] + _MARK + kind)
    if ".parquet" in {path.suffix for path in found.values()}:
        with extra("bulk", "results in Parquet: it"):
            import pyarrow.parquet  # noqa: F401
    return found


def _parts(location: str) -> tuple[str, ...]:
    if files.is_url(location):
        url = urlsplit(location)
        return (url.netloc, *url.path.strip("/").split("/"))
    return tuple(os.path.abspath(location).split(os.sep))


def _stem(path: tuple[str, ...]) -> tuple[str, ...]:
    return (*path[:-1], os.path.splitext(path[-1])[0])


def put(place: str | PathLike[str], first: int, stop: int, arrays: Mapping[str, Array]) -> None:
    """Keep ``arrays``, results of rows [first, stop), for the file at ``place``.

    They are on the disk when it returns. Raises ``OSError``.
    """
    folder = _folder(place)
    os.makedirs(folder, exist_ok=True)
    with _appearing(os.path.join(folder, _name(first, stop))) as file:
        file.write(CODEC.encode(arrays))


def finish(place: str | PathLike[str], pieces: Sequence[tuple[int, int]]) -> None:
    """Make the file at ``place`` of the results of all ``pieces``, rows [first, stop) in order.

    It never holds more than a piece. It does nothing where that has been done. Raises
    ``DecodeError`` if a piece is missing or damaged, and ``OSError``.
    """
    folder = _folder(place)
    if not os.path.isdir(folder):
        if not os.path.exists(place):
            raise DecodeError(f"{place}: its pieces, in {folder}, are not there any more")
        return
    paths = {os.path.join(folder, _name(*piece)): piece[1] - piece[0] for piece in pieces}
    _WRITERS[Path(place).suffix](os.fspath(place), paths)
    shutil.rmtree(folder)


def _folder(place: str | PathLike[str]) -> str:
    return f"{os.fspath(place)}.pieces"


def _name(first: int, stop: int) -> str:
    return f"{first}-{stop}.npz"


@contextmanager
def _appearing(path: str) -> Iterator[BinaryIO]:
    """A new file that gets its name when it is complete and on the disk."""
    # Two processes may write the same file at once, since a piece may be tried twice.
    begun = f"{path}.{os.uname().nodename}.{os.getpid()}.tmp"
    try:
        with open(begun, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(begun, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(begun)
        raise
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _piece(path: str, rows: int, names: Sequence[str] = ()) -> dict[str, Array]:
    """Arrays of a piece's file, of these ``names`` or, without any, of all. Checks their CRC-32."""
    try:
        held = npz.opened(path, {name: name for name in names})
        try:
            if not names:
                return _piece(path, rows, tuple(held.others))
            if any(tensor.shape[:1] != (rows,) for tensor in held.tensors.values()):
                raise DecodeError(f"it is of another piece than one of {rows:,} rows")
            return {name: tensor.read(0, rows) for name, tensor in held.tensors.items()}
        finally:
            held.close()
    except DecodeError as error:
        raise DecodeError(f"{path}: {error.message}", where=error.where) from None
    except FileNotFoundError:
        raise DecodeError(f"{path}: results of these rows are not there any more") from None


def _write_npz(place: str, pieces: Mapping[str, int]) -> None:
    """Write an archive of arrays, each of the rows of all ``pieces``: paths, and their rows."""
    path, count = next(iter(pieces.items()))
    heads = {name: array[:0] for name, array in _piece(path, count).items()}
    rows = sum(pieces.values())
    with _appearing(place) as file, zipfile.ZipFile(file, "w") as archive:
        for name, head in heads.items():
            info = member_at(file.tell(), name)
            with archive.open(info, "w", force_zip64=True) as member:
                member.write(npy.header(row_of(name, head), (rows, *head.shape[1:])))
                for path, count in pieces.items():
                    member.write(flat_bytes(_piece(path, count, (name,))[name]))


def _write_parquet(place: str, pieces: Mapping[str, int]) -> None:
    """Write a row group for each of ``pieces``: paths, and their rows.

    Results of rows of several elements are columns of fixed-shape tensors.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    def table(path: str) -> Any:
        columns = {}
        for name, array in _piece(path, pieces[path]).items():
            flat = pa.array(array.reshape(-1))
            if array.ndim > 1:
                kind = pa.fixed_shape_tensor(flat.type, array.shape[1:])
                each = int(array[:1].size) or 1
                lists = pa.FixedSizeListArray.from_arrays(flat, each)
                flat = pa.ExtensionArray.from_storage(kind, lists)
            columns[name] = flat
        return pa.table(columns)

    schema = table(next(iter(pieces))).schema
    with _appearing(place) as file, parquet.ParquetWriter(file, schema) as writer:
        for path in pieces:
            writer.write_table(table(path))


_WRITERS: Mapping[str, Callable[[str, Mapping[str, int]], None]] = {
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
