from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale.shards import Array
from service.bulk import output
from service.bulk.extras import MissingPackage
from service.errors import DecodeError, InvalidOption

ROWS = 20
SUFFIXES = (".npz", ".parquet")


def results(tail: tuple[int, ...] = ()) -> dict[str, Array]:
    generator = np.random.default_rng(5)
    return {
        "per_element": generator.standard_normal((ROWS, *tail), np.float32),
        "prediction": generator.integers(0, 9, (ROWS, *tail)),
    }


def put(place: str, arrays: dict[str, Array], pieces: Sequence[tuple[int, int]]) -> None:
    for first, stop in pieces:
        output.put(place, first, stop, {name: a[first:stop] for name, a in arrays.items()})


def read(place: str) -> dict[str, Array]:
    """The file's arrays, by other readers than ours."""
    if place.endswith(".npz"):
        with np.load(place) as archive:
            return dict(archive)
    table = parquet.read_table(place)
    found = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        tensors = hasattr(column, "to_numpy_ndarray")
        found[name] = column.to_numpy_ndarray() if tensors else column.to_numpy()
    return found


def assert_equal(found: dict[str, Array], wanted: dict[str, Array]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("tail", [(), (3,), (2, 3)], ids=str)
@settings(max_examples=6)
@given(cuts=st.sets(st.integers(1, ROWS - 1), max_size=5), seed=st.randoms())
def test_pieces_in_any_order_make_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    tail: tuple[int, ...],
    cuts: set[int],
    seed: object,
) -> None:
    folder = tmp_path_factory.mktemp("results")
    place, arrays = str(folder / f"a{suffix}"), results(tail)
    ends = [0, *sorted(cuts), ROWS]
    pieces = list(pairwise(ends))
    shuffled = list(pieces)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    put(place, arrays, shuffled)
    assert not os.path.exists(place)
    output.finish(place, pieces)
    assert_equal(read(place), arrays)
    assert os.listdir(folder) == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_is_the_same_however_it_was_cut(suffix: str, tmp_path: Path) -> None:
    arrays = results()
    for name, pieces in (("a", [(0, ROWS)]), ("b", [(0, 7), (7, ROWS)])):
        put(str(tmp_path / f"{name}{suffix}"), arrays, pieces)
        output.finish(tmp_path / f"{name}{suffix}", pieces)
    one, other = (read(str(tmp_path / f"{name}{suffix}")) for name in "ab")
    assert_equal(one, other)
    if suffix == ".npz":
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_steps_may_be_repeated(tmp_path: Path) -> None:
    """A run that ended at any moment goes on, and may do a thing again that it had done."""
    place, arrays = str(tmp_path / "a.npz"), results()
    pieces = [(0, 7), (7, ROWS)]
    put(place, {name: array * 0 for name, array in arrays.items()}, pieces[:1])
    put(place, arrays, [*pieces, pieces[1]])
    output.finish(place, pieces)
    output.finish(place, pieces)
    assert_equal(read(place), arrays)
    # Killed after the file got its name, before the pieces were gone.
    put(place, arrays, pieces)
    output.finish(place, pieces)
    assert_equal(read(place), arrays)


def test_pieces_of_another_run_are_passed_over(tmp_path: Path) -> None:
    place, arrays = str(tmp_path / "a.npz"), results()
    put(place, {name: array * 0 for name, array in arrays.items()}, [(0, 10), (10, ROWS)])
    put(place, arrays, [(0, 7), (7, ROWS)])
    output.finish(place, [(0, 7), (7, ROWS)])
    assert_equal(read(place), arrays)
    assert os.listdir(tmp_path) == ["a.npz"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["gone", "cut", "flip", "other rows"])
def test_a_piece_that_is_not_as_it_was(suffix: str, damage: str, tmp_path: Path) -> None:
    place, arrays = str(tmp_path / f"a{suffix}"), results()
    pieces = [(0, 7), (7, ROWS)]
    put(place, arrays, pieces)
    path = tmp_path / f"a{suffix}.pieces" / "7-20.npz"
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-5])
    elif damage == "flip":
        content[300] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes((path.parent / "0-7.npz").read_bytes())
    with pytest.raises(DecodeError) as raised:
        output.finish(place, pieces)
    assert str(path) in str(raised.value)
    assert not os.path.exists(place)
    assert not list(tmp_path.glob("*.tmp"))
    put(place, arrays, pieces[1:])
    output.finish(place, pieces)
    assert_equal(read(place), arrays)


def test_nothing_was_put(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="are not there any more"):
        output.finish(str(tmp_path / "a.npz"), [(0, 3)])


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        output.put(str(tmp_path / "a.npz"), 0, ROWS, results())
    assert os.listdir(tmp_path / "a.npz.pieces") == []


@pytest.mark.parametrize(
    ("locations", "places"),
    [
        (["a/1.npz", "a/2.safetensors"], ["1.per_element.npz", "2.per_element.npz"]),
        (["a/1.npz", "b/1.npz"], ["a/1.per_element.npz", "b/1.per_element.npz"]),
        (["a/1.parquet"], ["1.per_element.parquet"]),
        (["a/1.npz", "a/1.h5"], ["1.npz.per_element.npz", "1.h5.per_element.npz"]),
        (["s3://b/x/1.npz", "s3://b/y/1.npz"], ["x/1.per_element.npz", "y/1.per_element.npz"]),
        (["https://h/1.npz?v=2"], ["1.per_element.npz"]),
        (["a/1.zarr"], ["1.per_element.npz"]),
    ],
    ids=str,
)
def test_places(locations: list[str], places: list[str]) -> None:
    found = output.places("out", locations)
    assert list(found) == locations
    assert [str(path) for path in found.values()] == [f"out/{place}" for place in places]


def test_places_of_one_format() -> None:
    found = output.places(Path("out"), ["a/1.npz", "a/2.parquet"], ".parquet")
    assert {path.suffix for path in found.values()} == {".parquet"}


@pytest.mark.parametrize("directory", ["s3://bucket/out", Path("s3://bucket/out")], ids=repr)
def test_results_are_not_written_to_urls(directory: str | Path) -> None:
    with pytest.raises(InvalidOption, match="written to a folder, not to a URL"):
        output.places(directory, ["a.npz"])


def test_parquet_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    output.places("out", ["a.npz"])
    with pytest.raises(MissingPackage, match=r"lossd\[bulk\]"):
        output.places("out", ["a.parquet"])
