from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from service.bulk import formats
from service.errors import DecodeError
from tests.service.bulk.shards import ROWS, assert_rows, contents, opened, write


def test_big_endian_numbers(tmp_path: Path) -> None:
    wanted = contents()
    path = tmp_path / "shard-1.h5"
    with h5py.File(path, "w") as file:
        for name, array in wanted.items():
            file[name] = array.astype(array.dtype.newbyteorder(">"))
    with opened(str(path)) as shard:
        assert_rows(shard.read(3, 9), {name: array[3:9] for name, array in wanted.items()})


def test_a_file_with_a_user_block(tmp_path: Path) -> None:
    """Offsets are counted from the block's end, or not: such a file is not mapped."""
    wanted = contents()
    path = tmp_path / "shard-1.hdf5"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in wanted.items():
            file[name] = array
    with opened(str(path)) as shard:
        assert_rows(shard.read(3, 9), {name: array[3:9] for name, array in wanted.items()})


def test_datasets_in_groups_and_attributes(tmp_path: Path) -> None:
    wanted = contents()
    path = tmp_path / "shard-1.h5"
    with h5py.File(path, "w") as file:
        for name, array in wanted.items():
            file[f"step-1/{name}"] = array
        file.attrs["ignore_index"] = np.int64(-1)
        file.attrs["made_by"] = "me"
        file.attrs["sizes"] = [1, 2]
    with opened(str(path), {name: f"step-1/{name}" for name in wanted}) as shard:
        assert_rows(shard.read(3, 9), {name: array[3:9] for name, array in wanted.items()})
        assert shard.options == {"ignore_index": "-1", "made_by": "me"}
    with pytest.raises(DecodeError, match="dataset 'step-1' is no dataset but a group"):
        formats.opened(str(path), {"logits": "step-1"})


@pytest.mark.parametrize("name", ["logits", "labels"])
def test_chunks_that_were_never_written(name: str, tmp_path: Path) -> None:
    wanted = contents()
    path = tmp_path / "shard-1.h5"
    with h5py.File(path, "w") as file:
        for other, array in wanted.items():
            chunks = (5, *array.shape[1:])
            dataset = file.create_dataset(other, array.shape, array.dtype, chunks=chunks)
            stop = 14 if other == name else ROWS
            dataset[:stop] = array[:stop]
    with pytest.raises(DecodeError, match=f"dataset '{name}': 2 of its 5 chunks were never"):
        formats.opened(str(path), {})


def test_a_dataset_that_was_never_written(tmp_path: Path) -> None:
    path = tmp_path / "shard-1.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("logits", (ROWS, 7), "<f4")
    with pytest.raises(DecodeError, match="dataset 'logits': was never written"):
        formats.opened(str(path), {})


def test_an_external_dataset(tmp_path: Path) -> None:
    wanted = contents()
    path, beside = tmp_path / "shard-1.h5", tmp_path / "logits.raw"
    beside.write_bytes(wanted["logits"].tobytes())
    with h5py.File(path, "w") as file:
        file["labels"] = wanted["labels"]
        external: Any = [(str(beside), 0, wanted["logits"].nbytes)]
        file.create_dataset("logits", wanted["logits"].shape, "<f4", external=external)
    with opened(str(path)) as shard:
        assert_rows(shard.read(3, 9), {name: array[3:9] for name, array in wanted.items()})


def test_a_chunk_that_is_damaged(tmp_path: Path) -> None:
    location = write("hdf5-chunked", tmp_path, contents())
    with h5py.File(location) as file:
        place = file["logits"].id.get_chunk_info(2).byte_offset
        begins = int(file["logits"].id.get_chunk_info(2).chunk_offset[0])
    content = bytearray(Path(location).read_bytes())
    content[place + 20] ^= 1
    Path(location).write_bytes(content)
    with opened(location) as shard:
        shard.read(0, begins)
        with pytest.raises(DecodeError, match=f"dataset 'logits', rows {begins} to {ROWS} cannot"):
            shard.read(begins, ROWS)


def test_an_empty_dataset(tmp_path: Path) -> None:
    path = tmp_path / "shard-1.h5"
    with h5py.File(path, "w") as file:
        file["logits"] = h5py.Empty("<f4")
    with pytest.raises(DecodeError, match="dataset 'logits' is empty"):
        formats.opened(str(path), {})
