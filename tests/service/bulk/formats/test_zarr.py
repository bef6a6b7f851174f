from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from service.bulk import formats
from service.errors import DecodeError
from tests.service.bulk.shards import ROWS, assert_rows, contents, opened


def group(folder: Path, arrays: dict[str, Any], version: Any = 3, **options: Any) -> Path:
    path = folder / "shard-1.zarr"
    made = zarr.create_group(path, zarr_format=version)
    for name, array in arrays.items():
        made.create_array(name, data=array, **options)
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_both_versions_and_orders_of_bytes(version: int, endian: str, tmp_path: Path) -> None:
    wanted = contents()
    stored = {name: array.astype(endian + array.dtype.str[1:]) for name, array in wanted.items()}
    with opened(str(group(tmp_path, stored, version))) as shard:
        assert_rows(shard.read(3, 9), {name: array[3:9] for name, array in wanted.items()})


def test_classes_in_several_chunks(tmp_path: Path) -> None:
    wanted = contents()
    path = group(tmp_path, {"logits": wanted["logits"]}, chunks=(5, 3))
    zarr.open_group(path).create_array("labels", data=wanted["labels"])
    with opened(str(path)) as shard:
        assert list(shard.starts) == [0, 5, 10, 15, 20]
        assert_rows(shard.read(4, 16), {name: array[4:16] for name, array in wanted.items()})


@pytest.mark.parametrize(
    ("chunk", "rows", "text"),
    [
        ("logits/c/1/1", (7, 20), "array 'logits': its chunk c/1/1 is not there, from row 7 on"),
        ("logits/c/4/2", (7, 23), "array 'logits': its chunk c/4/2 is not there, from row 20 on"),
        ("labels/c/1", (7, 23), "array 'labels': its chunk c/1 is not there, from row 7 on"),
    ],
)
def test_a_chunk_that_is_gone(chunk: str, rows: tuple[int, int], text: str, tmp_path: Path) -> None:
    wanted = contents()
    path = group(tmp_path, {"logits": wanted["logits"]}, chunks=(5, 3))
    labels = np.maximum(wanted["labels"], 1)
    zarr.open_group(path).create_array("labels", data=labels, chunks=(5,))
    (path / chunk).unlink()
    with opened(str(path)) as shard:
        shard.read(0, 5)
        with pytest.raises(DecodeError) as raised:
            shard.read(*rows)
    assert str(raised.value).startswith(f"{path}: {text}")


def test_chunks_of_the_fill_value(tmp_path: Path) -> None:
    """Of images, background is left out by writers; logits of zeros are there if written."""
    wanted = contents(tail=(4,))
    wanted["labels"][10:] = 0
    wanted["logits"][10:] = 0
    path = group(tmp_path, {"labels": wanted["labels"]}, chunks=(5, 4))
    zarr.open_group(path).create_array(
        "logits", data=wanted["logits"], chunks=(5, 4, 7), config={"write_empty_chunks": True}
    )
    assert not (path / "labels/c/3/0").exists()
    with opened(str(path)) as shard:
        assert_rows(shard.read(0, ROWS), wanted)


def test_attributes_are_options(tmp_path: Path) -> None:
    path = group(tmp_path, contents())
    notes: dict[str, Any] = {
        "ignore_index": -1,
        "check_probabilities": True,
        "made_by": "me",
        "sizes": [1, 2],
    }
    zarr.open_group(path).attrs.update(notes)
    with opened(str(path)) as shard:
        assert shard.options == {
            "ignore_index": "-1", "check_probabilities": "true", "made_by": "me"
        }  # fmt: skip


def test_arrays_in_groups(tmp_path: Path) -> None:
    wanted = contents()
    path = tmp_path / "shard-1.zarr"
    inner = zarr.create_group(path).create_group("step-1")
    for name, array in wanted.items():
        inner.create_array(name, data=array)
    with opened(str(path), {name: f"step-1/{name}" for name in wanted}) as shard:
        assert_rows(shard.read(0, 4), {name: array[:4] for name, array in wanted.items()})
    with pytest.raises(DecodeError, match="array 'step-1' is no array but a group"):
        formats.opened(str(path), {"logits": "step-1"})


def test_an_array_is_no_shard(tmp_path: Path) -> None:
    path = tmp_path / "shard-1.zarr"
    zarr.create_array(path, data=np.zeros((3, 4), np.float32))
    with pytest.raises(DecodeError, match="one array: a shard is a group of arrays"):
        formats.opened(str(path), {})


def test_complex_numbers(tmp_path: Path) -> None:
    path = group(tmp_path, {"logits": np.zeros((3, 4), np.complex64)})
    with pytest.raises(DecodeError, match="array 'logits': its elements are complex64, but"):
        formats.opened(str(path), {})
