"""Set of shards in every format that is read: ``python -m benchmarks.scale.shards FOLDER``.

Equal arguments make equal tensors, which ``contents`` makes again without the files.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kernels import dtypes
from service.bulk.formats.base import DTYPE_NOTE
from service.codecs import npy
from service.codecs.base import flat_bytes
from service.codecs.safetensors import CODEC as SAFETENSORS

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

SHARDS = 64
# Share of the labels that are ignored, and rows by which shards differ in length, so that blocks of
# positions do not end where shards do.
_IGNORED, _UNEVEN = 0.05, 7
# Bytes of a chunk or a row group.
_CHUNK = 1 << 22


def contents(index: int, rows: int, classes: int, dtype: str, seed: int) -> dict[str, Array]:
    """Logits (rows, classes) of ``dtype`` and labels (rows,) of the shard number ``index``."""
    generator = np.random.default_rng([seed, index])
    logits = generator.standard_normal((rows, classes), np.float32)
    logits *= 3
    labels = generator.integers(0, classes, rows)
    labels[generator.random(rows) < _IGNORED] = -100
    return {"logits": of_dtype(logits, dtype), "labels": labels}


def of_dtype(array: Array, dtype: str) -> Array:
    """Float32 ``array`` as ``dtype``; bfloat16 by cutting off the last bits."""
    if dtype == dtypes.BFLOAT16.name:
        return (array.view(np.uint32) >> 16).astype(np.uint16).view(dtypes.BFLOAT16.numpy)
    return array.astype(dtype, copy=False)


def _npz(path: Path, arrays: Arrays) -> None:
    _write_npz(path, arrays, zipfile.ZIP_STORED)


def _npz_deflated(path: Path, arrays: Arrays) -> None:
    _write_npz(path, arrays, zipfile.ZIP_DEFLATED)


def _write_npz(path: Path, arrays: Arrays, method: int) -> None:
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(_header(array))
                member.write(flat_bytes(array))


def _npy(path: Path, arrays: Arrays) -> None:
    for name, array in arrays.items():
        with _beside(path, name).open("wb") as file:
            file.write(_header(array))
            file.write(flat_bytes(array))


def _npy_fortran(path: Path, arrays: Arrays) -> None:
    for name, array in arrays.items():
        header = _header(array).replace(b"'fortran_order': False", b"'fortran_order': True ")
        with _beside(path, name).open("wb") as file:
            file.write(header)
            file.write(flat_bytes(array.T))


def _header(array: Array) -> bytes:
    return npy.header(dtypes.of(array) or dtypes.BOOL, array.shape)


def _beside(path: Path, name: str) -> Path:
    return path.with_name(path.name.replace("logits", name))


def _safetensors(path: Path, arrays: Arrays) -> None:
    answer = SAFETENSORS.encode(arrays)
    with path.open("wb") as file:
        if isinstance(answer, bytes):
            file.write(answer)
        else:
            file.writelines([answer.content, *answer.more])


def _parquet_lists(path: Path, arrays: Arrays) -> None:
    _parquet(path, arrays, tensors=False)


def _parquet_tensors(path: Path, arrays: Arrays) -> None:
    _parquet(path, arrays, tensors=True)


def _parquet(path: Path, arrays: Arrays, tensors: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns, fields = [], []
    for name, array in arrays.items():
        notes = {DTYPE_NOTE: dtypes.BFLOAT16.name} if _is_bfloat16(array) else None
        column = pa.array(np.ascontiguousarray(_plain(array)).reshape(-1))
        if tensors and array.ndim > 1:
            kind = pa.fixed_shape_tensor(column.type, array.shape[1:])
            lists = pa.FixedSizeListArray.from_arrays(column, int(np.prod(array.shape[1:])))
            column = pa.ExtensionArray.from_storage(kind, lists)
        else:
            for extent in array.shape[:0:-1]:
                column = pa.FixedSizeListArray.from_arrays(column, extent)
        columns.append(column)
        fields.append(pa.field(name, column.type, metadata=notes))
    table = pa.table(columns, schema=pa.schema(fields))
    codec = "zstd" if tensors else "none"
    parquet.write_table(
        table,
        path,
        row_group_size=_rows_of_chunk(arrays["logits"]),
        compression=codec,
        use_dictionary=False,
        write_page_checksum=True,
    )


def _zarr(path: Path, arrays: Arrays) -> None:
    _write_zarr(path, arrays, sharded=False)


def _zarr_sharded(path: Path, arrays: Arrays) -> None:
    _write_zarr(path, arrays, sharded=True)


def _write_zarr(path: Path, arrays: Arrays, sharded: bool) -> None:
    import zarr

    group = zarr.create_group(path, overwrite=True)
    for name, array in arrays.items():
        rows = _rows_of_chunk(array)
        group.create_array(
            name,
            data=np.ascontiguousarray(_plain(array)),
            chunks=(rows, *array.shape[1:]),
            shards=(4 * rows, *array.shape[1:]) if sharded else None,
            attributes={DTYPE_NOTE: dtypes.BFLOAT16.name} if _is_bfloat16(array) else None,
        )


def _hdf5(path: Path, arrays: Arrays) -> None:
    _write_hdf5(path, arrays, chunked=False)


def _hdf5_chunked(path: Path, arrays: Arrays) -> None:
    _write_hdf5(path, arrays, chunked=True)


def _write_hdf5(path: Path, arrays: Arrays, chunked: bool) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            storage: dict[str, Any] = {}
            if chunked and len(array):
                rows = min(_rows_of_chunk(array), len(array))
                storage = {"chunks": (rows, *array.shape[1:])}
                storage |= {"compression": "gzip", "compression_opts": 1, "fletcher32": True}
            dataset = file.create_dataset(name, data=_plain(array), **storage)
            if _is_bfloat16(array):
                dataset.attrs[DTYPE_NOTE] = dtypes.BFLOAT16.name


def _is_bfloat16(array: Array) -> bool:
    return dtypes.of(array) is dtypes.BFLOAT16


def _plain(array: Array) -> Array:
    """``array`` as NumPy's own dtypes hold it."""
    return array.view(np.uint16) if _is_bfloat16(array) else array


def _rows_of_chunk(array: Array) -> int:
    return max(1, _CHUNK * len(array) // max(1, array.nbytes))


class Format(NamedTuple):
    """File name of a shard, with {} for its number, and how it is written."""

    name: str
    write: Callable[[Path, Arrays], None]


FORMATS = {
    "npz": Format("{}.npz", _npz),
    "npz-deflated": Format("{}.npz", _npz_deflated),
    "npy": Format("{}.logits.npy", _npy),
    "npy-fortran": Format("{}.logits.npy", _npy_fortran),
    "safetensors": Format("{}.safetensors", _safetensors),
    "parquet": Format("{}.parquet", _parquet_lists),
    "parquet-tensor": Format("{}.parquet", _parquet_tensors),
    "zarr": Format("{}.zarr", _zarr),
    "zarr-sharded": Format("{}.zarr", _zarr_sharded),
    "hdf5": Format("{}.h5", _hdf5),
    "hdf5-chunked": Format("{}.h5", _hdf5_chunked),
}


def written(
    folder: Path,
    size: int,
    *,
    shards: int = SHARDS,
    classes: int = 32_000,
    dtype: str = "float32",
    formats: tuple[str, ...] = tuple(FORMATS),
    seed: int = 0,
) -> Iterator[tuple[Path, int]]:
    """Write ``shards`` of about ``size`` bytes of logits in all, ``formats`` taking turns.

    Yields the path of each and its rows, as it is there. Their names sort in their order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    each = size // (shards * classes * dtypes.BY_NAME[dtype].size)
    for index in range(shards):
        rows = max(1, each - _UNEVEN // 2 + index % _UNEVEN)
        form = FORMATS[formats[index % len(formats)]]
        path = folder / form.name.format(f"shard-{index}")
        form.write(path, contents(index, rows, classes, dtype, seed))
        yield path, rows


def main() -> None:
    """Write the set that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale.shards", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of logits, in all")
    parser.add_argument("--shards", type=int, default=SHARDS)
    parser.add_argument("--classes", type=int, default=32_000)
    parser.add_argument("--dtype", default="float32", choices=[row.name for row in dtypes.FLOATS])
    parser.add_argument("--formats", default=",".join(FORMATS), help="names, by commas")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if unknown := set(given.formats.split(",")) - FORMATS.keys():
        parser.error(f"--formats: {', '.join(sorted(unknown))}: give some of {', '.join(FORMATS)}")
    shards = written(
        given.folder,
        round(given.gigabytes * 1e9),
        shards=given.shards,
        classes=given.classes,
        dtype=given.dtype,
        formats=tuple(given.formats.split(",")),
        seed=given.seed,
    )
    for path, rows in shards:
        print(f"{path}  {rows} rows", flush=True)


if __name__ == "__main__":
    main()
