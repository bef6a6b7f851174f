from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from service.bulk import mapping
from service.errors import DecodeError

SIZE = (5 << 21) + 4097
RANGES = [(0, SIZE), (1, 70_000), (5000, 5001), ((2 << 21) - 3, SIZE), (1 << 21, 3 << 21)]
linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's page cache")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mapping") / "a.bin"
    path.write_bytes(np.random.default_rng(1).bytes(SIZE))
    return path


@pytest.fixture
def descriptor(path: Path) -> Iterator[int]:
    opened = os.open(path, os.O_RDONLY)
    yield opened
    os.close(opened)


def refused(*_: Any) -> int:
    """Answer of ``syscall`` where a sandbox refuses the call."""
    return -1


class Advised(mmap.mmap):
    """Mapping that keeps what was advised, and refuses ``refusal`` with ``code``."""

    advice: ClassVar[list[int]] = []
    refusal, code = 0, 0

    def madvise(self, option: int, *rest: int) -> None:
        type(self).advice.append(option)
        if option == type(self).refusal:
            raise OSError(type(self).code, "no")
        super().madvise(option, *rest)


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> type[Advised]:
    monkeypatch.setattr(mmap, "mmap", Advised)
    monkeypatch.setattr(Advised, "advice", [])
    return Advised


@pytest.mark.parametrize("asked", [True, False], ids=["cache known", "cache unknown"])
@pytest.mark.parametrize(("first", "stop"), RANGES)
def test_bytes_of_a_range(
    path: Path, descriptor: int, first: int, stop: int, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not asked:
        monkeypatch.setattr(mapping, "_counter", lambda: refused)
    wanted = path.read_bytes()[first:stop]
    assert bytes(mapping.mapped(descriptor, first, stop, SIZE)) == wanted
    assert bytes(mapping.lazily(descriptor, first, stop)) == wanted


@linux
def test_pages_in_the_cache_are_known(descriptor: int) -> None:
    if mapping._counter()(451, descriptor, (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 5)(), 0):
        pytest.skip("before Linux 6.5, or in a sandbox")
    assert os.pread(descriptor, SIZE, 0)
    assert mapping.in_cache(descriptor, 0, SIZE)
    assert mapping.in_cache(descriptor, 8192, SIZE - 5)
    assert not mapping.in_cache(descriptor, 0, SIZE + mmap.PAGESIZE)  # the file ends before


@linux
@pytest.mark.parametrize("answer", [refused, lambda *_: 0], ids=["refused", "no page is there"])
def test_pages_that_may_be_missing_are_never_touched(
    descriptor: int, advised: type[Advised], answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Touching a page that the disk cannot read would end the process; this is an error."""
    monkeypatch.setattr(mapping, "_counter", lambda: answer)
    advised.refusal, advised.code = mapping._POPULATE, errno.EIO
    with pytest.raises(DecodeError, match="bytes 4 to 9,000 cannot be read: the disk fails"):
        mapping.mapped(descriptor, 4, 9000, SIZE)
    assert advised.advice == [mapping._POPULATE]


def test_kernels_without_populate(
    path: Path, descriptor: int, advised: type[Advised], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "_counter", lambda: None)
    advised.refusal, advised.code = mapping._POPULATE, errno.EINVAL
    assert bytes(mapping.mapped(descriptor, 4, 9000, SIZE)) == path.read_bytes()[4:9000]


def test_other_errors_are_the_systems(
    descriptor: int, advised: type[Advised], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "_counter", lambda: None)
    advised.refusal, advised.code = mapping._POPULATE, errno.ENOMEM
    with pytest.raises(OSError, match="no") as found:
        mapping.mapped(descriptor, 4, 9000, SIZE)
    assert found.value.errno == errno.ENOMEM


def test_a_file_that_is_shorter_by_now(tmp_path: Path) -> None:
    path = tmp_path / "short.bin"
    path.write_bytes(b"x" * 5000)
    with path.open("rb") as file:
        with pytest.raises(ValueError, match="greater than file size"):
            mapping.mapped(file.fileno(), 0, 6000, 6000)
        with pytest.raises(ValueError, match="greater than file size"):
            mapping.lazily(file.fileno(), 0, 6000)
