from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bulk import files, mapping
from service.errors import DecodeError

SIZE = 3 * 4096 + 17


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "a.bin"
    path.write_bytes(np.random.default_rng(1).bytes(SIZE))
    return path


@given(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(sorted))
def test_ranges_of_a_mapped_file(path: Path, places: list[int]) -> None:
    source = files.Mapped(str(path))
    first, stop = places
    assert source.size == SIZE
    assert bytes(source.read(first, stop)) == path.read_bytes()[first:stop]
    assert bytes(source.lazily(first, stop)) == path.read_bytes()[first:stop]
    source.close()


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(-99, SIZE + 99), st.integers(-99, SIZE + 99)), max_size=3))
def test_outlines_have_the_ranges_that_were_asked_for(
    path: Path, ranges: list[tuple[int, int]]
) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/files/a.bin", path.read_bytes())
    content = np.frombuffer(path.read_bytes(), np.uint8)
    wanted = np.zeros(SIZE, np.uint8)
    for first, stop in ranges:
        kept = slice(max(first, 0), max(stop, 0))
        wanted[kept] = content[kept]
    body = files.opened("memory://files/a.bin").outline(*ranges)
    assert bytes(body) == wanted.tobytes()


def test_an_outline_takes_no_memory_for_the_rest(tmp_path: Path) -> None:
    """A terabyte on a server has its header read, where a terabyte of memory is not."""

    class Vast(files.Fetched):
        def __init__(self) -> None:
            self.size = 1 << 40

        def read(self, first: int, stop: int) -> memoryview:
            return memoryview(b"x" * (stop - first))

    body = Vast().outline((5, 9), (1 << 39, (1 << 39) + 2))
    assert bytes(body[:12]) == b"\0" * 5 + b"xxxx" + b"\0" * 3
    assert bytes(body[(1 << 39) - 1 : (1 << 39) + 3]) == b"\0xx\0"


@pytest.mark.parametrize(
    ("location", "suffix"),
    [
        ("a/b.NPZ", ".npz"), ("a.zarr/", ".zarr"), ("s3://b/x.h5", ".h5"), ("a/b", ""),
        ("https://h/a.parquet?sig=x.y", ".parquet"), ("simplecache::s3://b/x.npy", ".npy"),
    ],
)  # fmt: skip
def test_suffixes(location: str, suffix: str) -> None:
    assert files.suffix(location) == suffix


def test_a_file_that_is_cut_under_its_reader(path: Path, tmp_path: Path) -> None:
    """Pages that may be missing are populated, which fails where touching would end the process."""
    copy = tmp_path / "a.bin"
    copy.write_bytes(path.read_bytes())
    source = files.Mapped(str(copy))

    class Cut(mmap.mmap):
        def madvise(self, *arguments: int) -> None:
            os.truncate(copy, 10)
            super().madvise(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapping, "in_cache", lambda *_: False)
        patch.setattr(mmap, "mmap", Cut)
        with pytest.raises(DecodeError, match="bytes 0 to 12,305 cannot be read: the disk fails"):
            source.read(0, SIZE)
    with pytest.raises(DecodeError, match="the file was cut to 10 bytes since it was opened"):
        source.lazily(0, SIZE)
    source.close()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="folder"):
        files.opened(str(tmp_path))


def test_ranges_of_huge_pages(tmp_path: Path) -> None:
    """They are mapped from the begin of a huge page to the end of one, or of the file."""
    content = np.random.default_rng(2).bytes(5 * 2**21 + 17)
    (tmp_path / "a.bin").write_bytes(content)
    source = files.Mapped(str(tmp_path / "a.bin"))
    size = len(content)
    for first, stop in (0, size), (5, 2**21 + 5), (2**21, 2**22), (2**21 - 1, size - 1):
        assert bytes(source.read(first, stop)) == content[first:stop]
    source.close()
