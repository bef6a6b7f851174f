"""Shards for tests: small, in every format that is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.scale import shards
from benchmarks.scale.shards import FORMATS, Array
from kernels import dtypes
from service.bulk import formats
from service.bulk.shard import Shard

DTYPES = tuple(row.name for row in dtypes.FLOATS)
ROWS, CLASSES = 23, 7


def contents(
    *, rows: int = ROWS, tail: tuple[int, ...] = (), classes: int = CLASSES, dtype: str = "float32"
) -> dict[str, Array]:
    """Logits (rows, tail, classes) and labels (rows, tail)."""
    generator = np.random.default_rng(rows)
    logits = generator.standard_normal((rows, *tail, classes), np.float32)
    labels = generator.integers(0, classes, (rows, *tail))
    return {"logits": shards.of_dtype(logits, dtype), "labels": labels}


def write(form: str, folder: Path, arrays: Mapping[str, Array], stem: str = "shard-1") -> str:
    """Write a shard of ``arrays`` and return its location. Chunks have a few rows."""
    path = folder / FORMATS[form].name.format(stem)
    if form == "safetensors" and any(array.dtype == np.bool_ for array in arrays.values()):
        save_file(dict(arrays), path)  # our own writer has no use for Booleans
        return str(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_CHUNK", max(1, arrays["logits"].nbytes // 5))
        FORMATS[form].write(path, arrays)
    return str(path)


@contextmanager
def opened(location: str, names: Mapping[str, str] | None = None) -> Iterator[Shard]:
    shard = formats.opened(location, names or {})
    try:
        yield shard
    finally:
        shard.close()


def assert_rows(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    """The same tensors, to the bit, apart from Booleans, which are numbers."""
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        plain = array.view(np.uint8) if array.dtype == np.bool_ else array
        assert found[name].dtype == plain.dtype
        assert found[name].shape == plain.shape
        assert found[name].tobytes() == plain.tobytes()
