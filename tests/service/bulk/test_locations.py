from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bulk.locations import natural, shards
from service.errors import DecodeError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: shards in it, in a folder, and other files."""
    for name in ("shard-10.npz", "shard-2.npz", "notes.txt", "[1].npz", "run/a.parquet"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "run" / "b.zarr").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bucket() -> Iterator[str]:
    """URL of a folder of fsspec's file system in memory."""
    system = fsspec.filesystem("memory")
    for name in ("shard-10.npz", "shard-2.npz", "notes.txt"):
        system.pipe(f"/bucket/{name}", b"")
    yield "memory://bucket"
    system.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["shard-2.npz", "shard-10.npz"], ["shard-2.npz", "shard-10.npz"]),
        (["shard-10.npz", "shard-2.npz"], ["shard-10.npz", "shard-2.npz"]),
        (["shard-*.npz"], ["shard-2.npz", "shard-10.npz"]),
        (["shard-??.npz", "./shard-2.npz"], ["shard-10.npz", "shard-2.npz"]),
        (["[1].npz"], ["[1].npz"]),
        (["."], ["./[1].npz", "./shard-2.npz", "./shard-10.npz"]),
        (["run"], ["run/a.parquet", "run/b.zarr"]),
        (["run/b.zarr/"], ["run/b.zarr"]),
        (["**/*.parquet"], ["run/a.parquet"]),
        # What is not there is an error of that shard, not of all.
        (["gone.npz", "shard-2.npz"], ["gone.npz", "shard-2.npz"]),
        (["s3://bucket/b.npz"], ["s3://bucket/b.npz"]),
        (["https://host/a.npz?sig=a%2Fb"], ["https://host/a.npz?sig=a%2Fb"]),
    ],
    ids=str,
)
def test_arguments(folder: Path, arguments: list[str], found: list[str]) -> None:
    assert list(map(os.path.normpath, shards(arguments, {}))) == list(map(os.path.normpath, found))


def test_file_urls_are_paths(folder: Path) -> None:
    assert shards([f"file://{folder}/shard-*.npz"], {}) == [
        f"{folder}/shard-2.npz", f"{folder}/shard-10.npz"
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", ["/shard-*.npz", "/", "/shard-[0-9]*.npz"])
def test_patterns_and_folders_of_urls(bucket: str, pattern: str) -> None:
    wanted = ["memory://bucket/shard-2.npz", "memory://bucket/shard-10.npz"]
    found = shards([bucket + pattern], {})
    assert [url.replace(":///", "://") for url in found] == wanted


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["*.zip"], r"\*.zip matches no file"),
        (["shard-2.npz", "./shard-2.npz"], "shard-2.npz is given twice"),
        (["*.npz", "shard-2.npz"], r"given twice, by \*.npz and by shard-2.npz"),
        (["nowhere://a/*.npz"], "Protocol not known"),
        (["memory://bucket/*.h5"], "matches no file"),
    ],
    ids=str,
)
def test_arguments_that_are_refused(
    folder: Path, bucket: str, arguments: list[str], text: str
) -> None:
    with pytest.raises(DecodeError, match=text):
        shards(arguments, {})


def test_a_folder_without_shards(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DecodeError, match=r"holds no .npz, .npy, .safetensors"):
        shards([str(tmp_path)], {})


@pytest.mark.parametrize(
    ("given_files", "found"),
    [
        (["labels-1.npy", "logits-1.npy", "mask-1.npy"], ["logits-1.npy"]),
        (["logits-2.npy", "logits-1.npy", "labels-1.npy"], ["logits-2.npy", "logits-1.npy"]),
        (["1/logits.npy", "1/labels.npy", "2/logits.npy"], ["1/logits.npy", "2/logits.npy"]),
        (["logits/1.npy", "labels/1.npy"], ["logits/1.npy"]),
        (["logits/run.logits.npy", "logits/run.sample_weight.npy"], ["logits/run.logits.npy"]),
    ],
    ids=str,
)
def test_npy_files_of_one_shard(given_files: list[str], found: list[str]) -> None:
    assert shards(given_files, {}) == found


def test_npy_files_of_other_names() -> None:
    names = {"logits": "preds", "labels": "y"}
    assert shards(["preds-1.npy", "y-1.npy"], names) == ["preds-1.npy"]


@pytest.mark.parametrize("name", ["a.npy", "labels-1.npy", "mylogits-1.npy"])
def test_a_npy_file_of_no_shard(name: str) -> None:
    with pytest.raises(DecodeError, match="its name does not say of which shard"):
        shards([name, "logits-2.npy"], {})


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_the_natural_order(numbers: list[int]) -> None:
    names = [f"shard-{number}.npz" for number in numbers]
    wanted = [f"shard-{number}.npz" for number in sorted(numbers)]
    assert sorted(names, key=natural) == wanted


@settings(max_examples=50)
@given(st.text("a1²0"), st.text("a1²0"))
def test_the_natural_order_is_one(left: str, right: str) -> None:
    assert (natural(left) == natural(right)) == (left == right)
    assert (natural(left) < natural(right)) + (natural(right) < natural(left)) == (left != right)
