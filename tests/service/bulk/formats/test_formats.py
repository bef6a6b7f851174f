from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale.shards import FORMATS
from kernels import dtypes
from service.bulk import formats
from service.bulk.extras import MissingPackage
from service.errors import DecodeError
from tests.service.bulk.shards import DTYPES, ROWS, assert_rows, contents, opened, write
from tests.service.bulk.web import serving

# Formats whose bytes are mapped as they lie, and those with a checksum of all that they hold.
MAPPED = ("npz", "npy", "npy-fortran", "safetensors", "hdf5")
CHECKED = ("npz", "npz-deflated")
# Libraries that are imported for a format, and no sooner.
LIBRARIES = {"parquet": "pyarrow.parquet", "zarr": "zarr", "hdf5": "h5py"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """Locations of shards in every format and dtype."""
    found = {}
    for dtype in DTYPES:
        folder = tmp_path_factory.mktemp(dtype)
        for number, form in enumerate(FORMATS):
            arrays = contents(dtype=dtype)
            found[form, dtype] = write(form, folder, arrays, f"shard-{number}")
    return found


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_every_format_and_dtype(
    written: dict[tuple[str, str], str], form: str, dtype: str
) -> None:
    wanted = contents(dtype=dtype)
    with opened(written[form, dtype]) as shard:
        assert shard.rows == ROWS
        assert shard.tensors["logits"] == (dtype, wanted["logits"].shape)
        assert shard.tensors["labels"] == ("int64", wanted["labels"].shape)
        starts = list(shard.starts)
        assert starts == sorted(set(starts))
        assert starts[:1] in ([], [0])
        for first, stop in ((0, ROWS), (11, 18), (ROWS - 1, ROWS), (3, 3), (0, 5)):
            found = shard.read(first, stop)
            assert_rows(found, {name: array[first:stop] for name, array in wanted.items()})


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, ROWS), st.integers(0, ROWS)), min_size=1, max_size=4))
def test_any_rows_in_any_order(
    written: dict[tuple[str, str], str], form: str, asked: list[tuple[int, int]]
) -> None:
    wanted = contents()
    with opened(written[form, "float32"]) as shard:
        for first, stop in map(sorted, asked):
            found = shard.read(first, stop)
            assert_rows(found, {name: array[first:stop] for name, array in wanted.items()})


@pytest.mark.parametrize("form", FORMATS)
def test_tensors_of_more_axes_and_of_all_names(form: str, tmp_path: Path) -> None:
    wanted = contents(tail=(3,))
    wanted["mask"] = wanted["labels"] % 2 == 0
    wanted["sample_weight"] = np.arange(ROWS * 3, dtype=np.float64).reshape(ROWS, 3)
    wanted["segments"] = (wanted["labels"] > 2).astype(np.int32)
    with opened(write(form, tmp_path, wanted)) as shard:
        assert shard.tensors["mask"].dtype == "bool"
        assert_rows(shard.read(4, 17), {name: array[4:17] for name, array in wanted.items()})


@pytest.mark.parametrize("form", [form for form in FORMATS if "parquet" not in form])
def test_weight_is_read_as_it_is(form: str, tmp_path: Path) -> None:
    wanted = contents()
    wanted["weight"] = np.arange(7, dtype=np.float32)
    with opened(write(form, tmp_path, wanted)) as shard:
        found = shard.read(20, 22)
        assert found["weight"].tolist() == wanted["weight"].tolist()
        assert len(found["logits"]) == 2


@pytest.mark.parametrize("form", FORMATS)
def test_a_shard_without_rows(form: str, tmp_path: Path) -> None:
    wanted = contents(rows=0)
    with opened(write(form, tmp_path, wanted)) as shard:
        assert shard.rows == 0
        assert_rows(shard.read(0, 0), wanted)


@pytest.mark.parametrize("form", FORMATS)
def test_tensors_of_other_names(form: str, tmp_path: Path) -> None:
    wanted = contents()
    wanted["mask"] = wanted["labels"] > 2
    names = {"logits": "logits", "labels": "target", "mask": "attention_mask"}
    theirs = {names[name]: array for name, array in wanted.items()}
    location = write(form, tmp_path, theirs)
    with opened(location, names) as shard:
        assert_rows(shard.read(2, 9), {name: array[2:9] for name, array in wanted.items()})


@pytest.mark.parametrize("form", [form for form in FORMATS if not form.startswith("npy")])
def test_missing_labels_are_looked_for_under_other_names(form: str, tmp_path: Path) -> None:
    arrays = contents()
    location = write(form, tmp_path, {"logits": arrays["logits"], "targets": arrays["labels"]})
    with pytest.raises(DecodeError) as raised:
        formats.opened(location, {})
    assert str(raised.value) == (
        f"{location}: holds no labels, only: logits, 'targets'; give --name labels='targets' if "
        "that is it"
    )


@pytest.mark.parametrize("form", [form for form in FORMATS if "parquet" not in form])
def test_rows_that_are_not_alike(form: str, tmp_path: Path) -> None:
    arrays = contents()
    arrays["labels"] = arrays["labels"][:-1]
    location = write(form, tmp_path, arrays)
    with pytest.raises(DecodeError, match="labels has 22 rows and logits 23"):
        formats.opened(location, {})


@pytest.mark.parametrize("form", FORMATS)
def test_boolean_logits(form: str, tmp_path: Path) -> None:
    arrays = contents()
    arrays["logits"] = arrays["logits"] > 0
    location = write(form, tmp_path, arrays)
    with pytest.raises(DecodeError, match=r"(?i)logits.*(bool|b1)"):
        formats.opened(location, {})


def test_a_suffix_of_no_format(tmp_path: Path) -> None:
    path = tmp_path / "logits.csv"
    path.write_text("1,2\n")
    with pytest.raises(DecodeError, match=r"suffix .csv is none that is read: .npz, .npy"):
        formats.opened(str(path), {})


# Damage.


def damaged(location: str, kind: str, at: float, bit: int) -> str:
    """Damage a file of the shard at ``location``; returns which."""
    if os.path.isdir(location):
        paths = sorted(path for path in Path(location).rglob("*") if path.is_file())
    else:
        paths = sorted(path for path in Path(location).parent.iterdir())
    path = paths[int(at * 7919) % len(paths)]
    content = bytearray(path.read_bytes())
    place = int(at * len(content))
    if kind == "cut":
        path.write_bytes(content[:place])
    elif kind == "gone":
        path.unlink()
    else:
        content[place] ^= 1 << bit
        path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=30)
@given(st.sampled_from(["cut", "gone", "flip"]), st.floats(0, 0.9999), st.integers(0, 7))
def test_a_damaged_shard_is_named_or_has_the_same_shape(
    written: dict[tuple[str, str], str],
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    kind: str,
    at: float,
    bit: int,
) -> None:
    wanted, folder = contents(), tmp_path_factory.mktemp("damaged")
    whole = Path(written[form, "float32"])
    for path in whole.parent.glob(f"{whole.name.partition('.')[0]}.*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
    location = str(folder / whole.name)
    damaged(location, kind, at, bit)
    failed: DecodeError | None = None
    try:
        with opened(location) as shard:
            rows = shard.rows
            found = shard.read(0, rows)
    except DecodeError as error:
        failed = error
    shutil.rmtree(folder)
    if failed is not None:
        assert str(failed).startswith(f"{location}: ")
        assert len(str(failed)) > len(location) + 10
        return
    for name in ("logits", "labels"):
        assert len(found[name]) == rows
    if form in CHECKED and kind != "gone":
        assert_rows({name: found[name] for name in wanted}, wanted)
    if kind == "cut":
        # Of a group, the attributes alone may be cut to the same.
        assert form.startswith("zarr")


@pytest.mark.parametrize("form", FORMATS)
def test_a_shard_that_is_not_there(form: str, tmp_path: Path) -> None:
    location = str(tmp_path / FORMATS[form].name.format("shard-1"))
    with pytest.raises(DecodeError, match="No such file") as raised:
        formats.opened(location, {})
    assert str(raised.value).startswith(location)
    with pytest.raises(DecodeError, match="No such file"):
        formats.fingerprint(location, {})


@pytest.mark.parametrize("form", ["npz", "npz-deflated", "npy", "npy-fortran", "safetensors"])
@pytest.mark.parametrize("change", ["cut", "written"])
def test_a_shard_that_changes_while_it_is_open(form: str, change: str, tmp_path: Path) -> None:
    location = write(form, tmp_path, contents(rows=2000))
    with opened(location) as shard:
        if change == "cut":
            os.truncate(location, 300)
        else:
            os.utime(location, ns=(0, 0))
        with pytest.raises(DecodeError, match="since it was opened") as raised:
            shard.read(0, 2000)
        assert str(raised.value).startswith(location)


@pytest.mark.parametrize("form", FORMATS)
def test_arrays_outlive_the_shard(form: str, tmp_path: Path) -> None:
    wanted = contents()
    with opened(write(form, tmp_path, wanted)) as shard:
        found = shard.read(0, ROWS)
    assert_rows(found, wanted)


@pytest.mark.parametrize("form", MAPPED)
def test_nothing_stays_mapped(form: str, tmp_path: Path) -> None:
    """A worker's resident memory is that of the rows in use, whatever the file's size."""
    location = write(form, tmp_path, contents(rows=2000))

    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(str(tmp_path))

    with opened(location) as shard:
        assert not mapped()
        found = shard.read(0, 100)
        assert mapped() == len(found)
        del found
        assert not mapped()


def test_deflated_rows_are_inflated_by_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places in the member are kept, from where to go on, at most so many bytes before the rows."""
    from service.bulk.formats import npz

    wanted = contents(rows=3000, classes=50)
    location = write("npz-deflated", tmp_path, wanted)
    monkeypatch.setattr(npz, "_PLACE", 1 << 16)
    monkeypatch.setattr(npz, "STEP", 1 << 12)
    monkeypatch.setattr(npz, "_COMPRESSED", 1 << 12)
    made: list[int] = []
    inflate = npz._Inflation._next

    def counted(self: Any, most: int) -> bytes:
        piece = inflate(self, most)
        made.append(len(piece))
        return piece

    monkeypatch.setattr(npz._Inflation, "_next", counted)
    with opened(location) as shard:
        shard.read(0, 1)
        for first in (2900, 100, 1500, 1499):
            made.clear()
            found = shard.read(first, first + 10)
            assert_rows(found, {name: array[first : first + 10] for name, array in wanted.items()})
            # A place of each tensor, and what the rows of it take.
            assert sum(made) < 2 * (1 << 16) + 10 * (50 * 4 + 8) + 2 * (1 << 12)


# Fingerprints.


@pytest.mark.parametrize("form", FORMATS)
def test_a_fingerprint_changes_with_any_file_of_the_shard(form: str, tmp_path: Path) -> None:
    location = write(form, tmp_path, contents())
    before = formats.fingerprint(location, {})
    assert formats.fingerprint(location, {}) == before
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    for path in files:
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))
        after = formats.fingerprint(location, {})
        assert after != before
        before = after


# Packages of the extra.


@pytest.mark.parametrize("form", LIBRARIES)
def test_a_package_that_is_not_installed(
    form: str, written: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, LIBRARIES[form], None)
    location = written[form, "float32"]
    with pytest.raises(MissingPackage) as raised:
        formats.opened(location, {})
    assert raised.value.message.startswith(location)
    assert raised.value.message.endswith("pip install 'lossd[bulk]'")
    assert "\n" not in raised.value.message


def test_local_paths_need_no_fsspec(
    written: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    for form in ("npz", "npy", "safetensors"):
        with opened(written[form, "float32"]) as shard:
            shard.read(0, 3)
    with pytest.raises(MissingPackage, match="needs the package fsspec"):
        formats.opened("memory://somewhere/shard.npz", {})


# URLs.


@pytest.fixture
def in_memory() -> Iterator[str]:
    """URL of an empty folder of fsspec's file system in memory."""
    system = fsspec.filesystem("memory")
    system.makedirs("/corpus")
    yield "memory://corpus"
    system.rm("/corpus", recursive=True)


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "npy-fortran"])
def test_rows_of_urls(form: str, in_memory: str, tmp_path: Path) -> None:
    wanted = contents()
    name = Path(write(form, tmp_path, wanted)).name
    fsspec.filesystem("memory").put(f"{tmp_path}/", "/corpus/", recursive=True)
    location = f"{in_memory}/{name}"
    with opened(location) as shard:
        for first, stop in ((0, ROWS), (11, 18), (3, 3)):
            found = shard.read(first, stop)
            assert_rows(found, {name: array[first:stop] for name, array in wanted.items()})
    before = formats.fingerprint(location, {})
    assert formats.fingerprint(location, {}) == before
    (tmp_path / "again").mkdir()
    write(form, tmp_path / "again", contents(rows=ROWS + 1))
    fsspec.filesystem("memory").put(f"{tmp_path}/again/", "/corpus/", recursive=True)
    assert formats.fingerprint(location, {}) != before


@pytest.mark.parametrize("form", ["npz", "npz-deflated", "npy", "safetensors", "parquet", "hdf5"])
def test_rows_over_http(form: str, tmp_path: Path) -> None:
    wanted = contents(rows=4000, classes=100)
    path = write(form, tmp_path, wanted)
    with serving(tmp_path) as (url, handler), opened(f"{url}/{Path(path).name}?v=1") as shard:
        assert_rows(shard.read(7, 20), {name: array[7:20] for name, array in wanted.items()})
        if form in ("npy", "safetensors"):
            assert handler.sent < 200_000 < os.path.getsize(path)
        assert_rows(shard.read(3000, 4000), {name: a[3000:] for name, a in wanted.items()})


def test_http_without_ranges(tmp_path: Path) -> None:
    name = Path(write("npz", tmp_path, contents(rows=9000))).name
    with (
        serving(tmp_path, ranges=False) as (url, _),
        pytest.raises(DecodeError, match="does not answer byte ranges") as raised,
        opened(f"{url}/{name}") as shard,
    ):
        shard.read(0, 2)
    assert url in str(raised.value)


def test_fingerprint_over_http(tmp_path: Path) -> None:
    path = Path(write("npz", tmp_path, contents()))
    with serving(tmp_path) as (url, _):
        before = formats.fingerprint(f"{url}/{path.name}", {})
        assert formats.fingerprint(f"{url}/{path.name}", {}) == before
        path.write_bytes(path.read_bytes() + b"more")
        assert formats.fingerprint(f"{url}/{path.name}", {}) != before
        with pytest.raises(DecodeError, match="not there"):
            formats.fingerprint(f"{url}/other.npz", {})


def test_a_url_in_fortran_order(in_memory: str, tmp_path: Path) -> None:
    name = Path(write("npy-fortran", tmp_path, contents())).name
    fsspec.filesystem("memory").put(f"{tmp_path}/", "/corpus/", recursive=True)
    with pytest.raises(DecodeError, match="Fortran order"):
        formats.opened(f"{in_memory}/{name}", {})


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nowhere://a/b.npz", "Protocol not known: nowhere"),
        ("s3://bucket/b.npz", "Install s3fs"),
        ("memory://corpus/none.npz", "not there"),
        ("memory://corpus/none.zarr", "not there"),
    ],
)
def test_urls_that_cannot_be_opened(in_memory: str, url: str, text: str) -> None:
    with pytest.raises(DecodeError, match=text) as raised:
        formats.opened(url, {})
    assert str(raised.value).startswith(url)


# A name is wanted of every dtype that kernels read.


@pytest.mark.parametrize("form", ["npz", "safetensors", "parquet", "zarr", "hdf5", "hdf5-chunked"])
def test_labels_of_every_integer_type(form: str, tmp_path: Path) -> None:
    for row in dtypes.INTEGERS:
        arrays = contents()
        arrays["labels"] = arrays["labels"].astype(row.numpy)
        location = write(form, tmp_path, arrays)
        with opened(location) as shard:
            assert shard.tensors["labels"].dtype == row.name
            assert_rows(shard.read(0, ROWS), arrays)
        if os.path.isdir(location):
            shutil.rmtree(location)
