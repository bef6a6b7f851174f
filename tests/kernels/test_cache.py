"""Compiled code on disk: whatever has become of a file, it is compiled anew, and told in a line."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from numba import types

from kernels import cache, compiled

SIGNATURE = (types.float64, types.float64)
OTHER = (types.int64, types.int64)


def add(a: Any, b: Any) -> Any:
    return a + b


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder, empty."""
    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    monkeypatch.setattr(cache, "_once", set())
    return tmp_path


def compile_or_load(signature: Any = SIGNATURE) -> bool:
    """Look for ``add`` in the cache, as another process would; it has to work either way."""
    dispatcher: Any = compiled.kernel(add)
    dispatcher.compile(signature)
    assert dispatcher(2.0, 3.0) == 5.0
    return bool(dispatcher._cache_hits[signature])


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def _flip(at: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[at] ^= 0x10
        path.write_bytes(content)

    return damage


def _swap(path: Path) -> None:
    """Put the file of another signature, which is whole, in this one's place."""
    own = {*path.parent.iterdir()}
    compile_or_load(OTHER)
    (other,) = {*path.parent.iterdir()} - own
    os.replace(other, path)


def _folder(path: Path) -> None:
    path.unlink()
    (path / "below").mkdir(parents=True)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "a few bytes": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "random": lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
    "a bit of the checksum": _flip(3),
    "a bit of the stamp": _flip(35),
    "a bit of the name": _flip(70),
    "a bit of the pickle": _flip(100),
    "a bit of the code": _flip(-900),
    "swapped": _swap,
    "a folder": _folder,
    "a pipe": _pipe,
    "a device without an end": _endless,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=[*DAMAGE])
def test_what_is_damaged_is_told_and_compiled_anew(
    kept: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], Any]
) -> None:
    assert not compile_or_load()
    assert compile_or_load()
    damage(only_file(kept))
    caplog.clear()
    assert not compile_or_load()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "is damaged" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert compile_or_load()


def test_other_sources_are_no_damage(
    kept: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_or_load()
    monkeypatch.setattr(compiled, "STAMP", b"of other sources")
    assert not compile_or_load()
    assert compile_or_load()
    assert not caplog.records
    only_file(kept)  # replaced, not added to


def test_the_stamp_is_of_all_that_kernels_are_compiled_from() -> None:
    """Of sources in folders of folders too, and of none of CUDA's or the reports'."""
    apart = ("kernels.cuda", "kernels.report")
    loaded = {
        Path(str(module.__file__))
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "kernels" and not name.startswith(apart)
    }
    folder = Path(compiled.__file__).parent
    assert folder / "cpu" / "sums" / "rows.py" in loaded
    assert loaded <= compiled.SOURCES
    assert not {path.relative_to(folder).parts[0] for path in compiled.SOURCES} & {"cuda", "report"}
    with pytest.raises(ValueError, match="no file"):
        compiled.stamp_of([])


def test_other_versions_share_the_folder(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_or_load()
    with monkeypatch.context() as changed:
        changed.setattr(cache, "VERSIONS", b"of another Python")
        assert not compile_or_load()
        assert compile_or_load()
    assert compile_or_load()


def test_code_that_numba_cannot_load_is_compiled_anew(
    kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compile_or_load()
    name = only_file(kept).name
    cache.KernelCache(add, compiled.STAMP)._keep(name, b"whole, but no pickle")
    assert not compile_or_load()
    assert "cannot be loaded" in caplog.text
    assert compile_or_load()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_takes_nothing_is_told_once(
    kept: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    assert not compile_or_load()
    assert not compile_or_load(OTHER)
    (record,) = caplog.records
    assert os.strerror(number) in record.getMessage()
    assert not [*kept.iterdir()]


def test_nothing_is_compiled_where_it_is_only_to_be_loaded(kept: Path) -> None:
    with cache.loading_only(), pytest.raises(cache.NotCached):
        compile_or_load()
    compile_or_load()
    with cache.loading_only():
        assert compile_or_load()


def test_files_are_their_owners_alone(kept: Path) -> None:
    compile_or_load()
    assert only_file(kept).stat().st_mode & 0o777 == 0o600


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Folder that NUMBA_CACHE_DIR names."""
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "named"))
    cache.folder.cache_clear()
    yield tmp_path / "named"
    cache.folder.cache_clear()


def test_the_folder_is_made_for_its_user_alone(parent: Path) -> None:
    before = os.umask(0)
    try:
        assert cache.folder() == parent / "lossd"
    finally:
        os.umask(before)
    assert (parent / "lossd").stat().st_mode & 0o777 == 0o700


def _everybodys(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (parent / "lossd").mkdir(parents=True)
    (parent / "lossd").chmod(0o777)


def _somebodys(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        (parent / "lossd").mkdir(parents=True)
        os.chown(parent / "lossd", 12345, 12345)
    else:
        own = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)


def _a_file(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent.touch()


def _read_only(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)


def _no_room(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", refuse)


@pytest.mark.parametrize("spoil", [_everybodys, _somebodys, _a_file, _read_only, _no_room])
def test_without_a_folder_it_works_and_says_so_once(
    parent: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    spoil(parent, monkeypatch)
    assert not compile_or_load()
    assert not compile_or_load()
    (record,) = caplog.records
    assert str(parent / "lossd") in record.getMessage()


def test_a_filled_folder_may_be_read_only(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_or_load()
    cache.folder.cache_clear()
    _read_only(parent, monkeypatch)
    assert compile_or_load()


def test_beside_the_sources_or_in_the_users_own(
    parent: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("numba.config.CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "package" / "cache.py"))
    assert cache.folder() == tmp_path / "package" / "__pycache__" / "lossd"
    cache.folder.cache_clear()
    shutil.rmtree(tmp_path / "package")
    (tmp_path / "package").touch()
    assert cache.folder() == tmp_path / "users" / "lossd"
