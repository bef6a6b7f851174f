from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from benchmarks.scale.shards import Array
from service.bulk import formats
from service.errors import DecodeError
from tests.service.bulk.shards import CLASSES, ROWS, assert_rows, contents, opened, write


def table(folder: Path, columns: dict[str, Any], **options: Any) -> str:
    path = folder / "shard-1.parquet"
    parquet.write_table(pa.table(columns), path, **options)
    return str(path)


def lists(array: Array, kind: Any) -> Any:
    return pa.array(array.tolist(), kind)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float32())], ids=str)
def test_lists_of_one_length(kind: Any, tmp_path: Path) -> None:
    """Spark and Hugging Face's datasets know no fixed-size lists."""
    wanted = contents()
    columns = {"logits": lists(wanted["logits"], kind), "labels": wanted["labels"]}
    with opened(table(tmp_path, columns, row_group_size=5)) as shard:
        assert shard.tensors["logits"] == ("float32", (ROWS, CLASSES))
        assert_rows(shard.read(3, 14), {name: array[3:14] for name, array in wanted.items()})


def test_lists_in_lists(tmp_path: Path) -> None:
    wanted = contents(tail=(3,))
    columns = {
        "logits": lists(wanted["logits"], pa.list_(pa.list_(pa.float32(), CLASSES))),
        "labels": lists(wanted["labels"], pa.list_(pa.int64())),
    }
    with opened(table(tmp_path, columns)) as shard:
        assert_rows(shard.read(3, 14), {name: array[3:14] for name, array in wanted.items()})


def test_a_list_of_another_length_is_named_by_its_row(tmp_path: Path) -> None:
    wanted = contents()
    rows = wanted["logits"].tolist()
    rows[17] = rows[17][:-2]
    columns = {"logits": pa.array(rows, pa.list_(pa.float32())), "labels": wanted["labels"]}
    with opened(table(tmp_path, columns, row_group_size=5)) as shard:
        shard.read(0, 17)
        with pytest.raises(DecodeError, match=r"row 17: a list of 5, but that of row 0 is of 7"):
            shard.read(10, ROWS)


@pytest.mark.parametrize("inner", [False, True])
def test_a_null_is_named_by_its_row(inner: bool, tmp_path: Path) -> None:
    wanted = contents()
    rows: list[Any] = wanted["logits"].tolist()
    rows[9] = [*rows[9][:-1], None] if inner else None
    kind = pa.list_(pa.float32(), CLASSES)
    columns = {"logits": pa.array(rows, kind), "labels": wanted["labels"]}
    with (
        opened(table(tmp_path, columns)) as shard,
        pytest.raises(DecodeError, match="column 'logits', row 9: null is no number"),
    ):
        shard.read(5, ROWS)


def test_a_tensor_whose_axes_are_permuted(tmp_path: Path) -> None:
    wanted = contents(tail=(3,))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(wanted["logits"].reshape(-1)), 3 * CLASSES)
    kind = pa.fixed_shape_tensor(pa.float32(), (3, CLASSES), permutation=[1, 0])
    columns = {
        "logits": pa.ExtensionArray.from_storage(kind, flat),
        "labels": lists(wanted["labels"], pa.list_(pa.int64(), 3)),
    }
    with opened(table(tmp_path, columns)) as shard:
        assert shard.tensors["logits"].shape == (ROWS, CLASSES, 3)
        found = shard.read(2, 20)["logits"]
        assert found.tolist() == wanted["logits"][2:20].transpose(0, 2, 1).tolist()


def test_a_row_group_is_read_where_rows_begin_in_it(tmp_path: Path) -> None:
    wanted = contents()
    location = write("parquet", tmp_path, wanted)
    with opened(location) as shard:
        groups = parquet.ParquetFile(location).metadata
        counts = [groups.row_group(index).num_rows for index in range(groups.num_row_groups)]
        assert list(shard.starts) == [0, *np.cumsum(counts)[:-1]]


def test_large_row_groups_are_read_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece of a row group takes the memory of the piece and of a batch, not of the group."""
    from service.bulk.formats import parquet as reader

    wanted = contents(rows=20_000, classes=40)
    columns = {
        "logits": lists(wanted["logits"], pa.list_(pa.float32(), 40)),
        "labels": wanted["labels"],
    }
    location = table(tmp_path, columns, row_group_size=20_000)
    monkeypatch.setattr(reader, "_BATCH", 1 << 16)
    with opened(location) as shard:
        shard.read(0, 10)
        before = pa.total_allocated_bytes()
        found = shard.read(10_000, 10_010)
        assert pa.total_allocated_bytes() - before < wanted["logits"].nbytes // 2
        assert_rows(found, {name: array[10_000:10_010] for name, array in wanted.items()})


def test_metadata_are_options(tmp_path: Path) -> None:
    wanted = contents()
    kind = pa.list_(pa.float32(), CLASSES)
    columns = {"logits": lists(wanted["logits"], kind), "labels": wanted["labels"]}
    made = pa.table(columns).replace_schema_metadata({"ignore_index": "-1", "pandas": "{}"})
    path = tmp_path / "shard-1.parquet"
    parquet.write_table(made, path)
    with opened(str(path)) as shard:
        assert shard.options == {"ignore_index": "-1"}


def test_a_column_is_no_weight(tmp_path: Path) -> None:
    wanted = contents()
    kind = pa.list_(pa.float32(), CLASSES)
    columns = {
        "logits": lists(wanted["logits"], kind), "labels": wanted["labels"],
        "weight": wanted["labels"].astype(np.float32),
    }  # fmt: skip
    with pytest.raises(DecodeError, match="weight has one value a class, and a column one a row"):
        formats.opened(table(tmp_path, columns), {})


def test_a_column_of_texts(tmp_path: Path) -> None:
    columns = {"logits": ["a", "b"], "labels": [1, 2]}
    with pytest.raises(DecodeError, match="column 'logits' is of string: a tensor is a column of"):
        formats.opened(table(tmp_path, columns), {})


def test_a_page_that_is_damaged(tmp_path: Path) -> None:
    location = write("parquet", tmp_path, contents())
    column = parquet.ParquetFile(location).metadata.row_group(2).column(0)
    content = bytearray(Path(location).read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    Path(location).write_bytes(content)
    with opened(location) as shard:
        shard.read(0, shard.starts[2])
        with pytest.raises(DecodeError, match="CRC checksum") as raised:
            shard.read(0, ROWS)
    assert f"{location}: column 'logits', rows 0 to {ROWS}" in str(raised.value)
