"""Tensors from files: each format gives the same arrays, and what is wrong is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.cli.files import read
from service.errors import DecodeError

LOGITS = np.arange(12, dtype=np.float32).reshape(3, 4)
LABELS = np.array([0, 3, 1])
WEIGHT = np.ones(4, np.float32)


def npz(folder: Path) -> list[Path]:
    np.savez(folder / "both.npz", logits=LOGITS, labels=LABELS, weight=WEIGHT)
    return [folder / "both.npz"]


def compressed(folder: Path) -> list[Path]:
    np.savez_compressed(folder / "both.NPZ", logits=LOGITS, labels=LABELS, weight=WEIGHT)
    (folder / "both.NPZ.npz").rename(folder / "both.NPZ")
    return [folder / "both.NPZ"]


def safetensors(folder: Path) -> list[Path]:
    tensors = {"logits": LOGITS, "labels": LABELS, "weight": WEIGHT}
    save_file(tensors, folder / "both.safetensors")
    return [folder / "both.safetensors"]


def npy(folder: Path) -> list[Path]:
    np.save(folder / "a.npy", LOGITS)
    np.save(folder / "b.npy", LABELS)
    return [folder / "a.npy", folder / "b.npy"]


@pytest.mark.parametrize("write", [npz, compressed, safetensors, npy])
def test_each_format_gives_the_same_arrays(write: object, tmp_path: Path) -> None:
    assert callable(write)
    tensors = read(write(tmp_path)).tensors
    np.testing.assert_array_equal(tensors["logits"], LOGITS, strict=True)
    np.testing.assert_array_equal(tensors["labels"], LABELS, strict=True)
    if write is not npy:
        np.testing.assert_array_equal(tensors["weight"], WEIGHT, strict=True)


def test_metadata_gives_options(tmp_path: Path) -> None:
    path = tmp_path / "both.safetensors"
    save_file({"logits": LOGITS, "labels": LABELS}, path, {"ignore_index": "3"})
    assert read([path]).options == {"ignore_index": "3"}


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_mask_is_read_as_ones_and_zeros(suffix: str, tmp_path: Path) -> None:
    path, mask = tmp_path / f"masked.{suffix}", np.array([True, False, True])
    tensors = {"logits": LOGITS, "labels": LABELS, "sample_weight": mask}
    if suffix == "npz":
        np.savez(path, **tensors)  # type: ignore[arg-type]
    else:
        save_file(tensors, path)
    np.testing.assert_array_equal(read([path]).tensors["sample_weight"], mask.astype("u1"))


def test_what_is_read_is_not_copied(tmp_path: Path) -> None:
    for write in (npz, safetensors, npy):
        logits = read(write(tmp_path)).tensors["logits"]
        assert not logits.flags.owndata
        assert not logits.flags.writeable


@pytest.mark.parametrize(
    "names",
    [["a.npy"], ["a.npy", "b.npz"], ["a.npz", "b.npz"], ["a.npy"] * 3, ["a.pt"], ["a"]],
    ids=" ".join,
)
def test_other_files_are_refused_with_what_would_be_right(names: list[str]) -> None:
    with pytest.raises(DecodeError, match=r"two \.npy files"):
        read([Path(name) for name in names])


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", logits=LOGITS)
    with pytest.raises(DecodeError, match="no labels, only: logits"):
        read([tmp_path / "a.npz"])


def test_a_tensor_that_nobody_asked_for_is_passed_over_and_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", logits=LOGITS, labels=LABELS, hidden=WEIGHT)
    tensors = {f"layer.{number}": WEIGHT for number in range(2000)}
    save_file({"logits": LOGITS, "labels": LABELS, **tensors}, tmp_path / "a.safetensors")
    for name, others in (("a.npz", {"hidden"}), ("a.safetensors", {*tensors})):
        message = read([tmp_path / name])
        assert message.tensors.keys() == {"logits", "labels"}
        assert set(message.others) == others


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_an_empty_file_is_malformed(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"empty{suffix}"
    path.touch()
    with pytest.raises(DecodeError):
        read([path])


def test_a_file_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        read([Path("nowhere.npz")])
