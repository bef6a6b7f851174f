"""Bytes of files by ranges: mapped where they are local, fetched where they are not."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import urlsplit

import numpy as np

from service.bulk import mapping
from service.bulk.extras import extra
from service.errors import DecodeError, RequestError

_NORESERVE = 0x4000  # Linux's MAP_NORESERVE
# Facts that file systems tell of a file, and that change with it: of HTTP, then of others.
_FACTS = (
    *("ETag", "Content-MD5", "Digest", "Last-Modified", "size"),
    *("etag", "mtime", "created", "LastModified", "md5Hash", "version_id"),
)


class Source(Protocol):
    """File that is open, at ``location``, of ``size`` bytes."""

    location: str
    size: int

    def read(self, first: int, stop: int) -> memoryview:
        """Bytes [first, stop), which must lie in the file. Raises ``DecodeError``."""
        ...

    def outline(self, *ranges: tuple[int, int]) -> memoryview:
        """Body of ``size`` bytes that has those of ``ranges``, and maybe no others.

        It takes memory for these alone. Ranges may reach beyond the file. Raises ``DecodeError``.
        """
        ...

    def handle(self) -> str | BinaryIO:
        """Path of the file, or a file object, for other libraries."""
        ...

    def close(self) -> None: ...


def is_url(location: str) -> bool:
    """Return whether ``location`` is a URL, or a chain of them, and no path."""
    return "://" in location or "::" in location


def suffix(location: str) -> str:
    """Suffix of the last part of the path in ``location``, in lower case: ".npz"."""
    path = urlsplit(location).path if is_url(location) else location
    return os.path.splitext(path.rstrip("/"))[1].lower()


def opened(location: str) -> Source:
    """Open the file at ``location``. Raises ``DecodeError``, ``MissingPackage``, ``OSError``."""
    return Fetched(location) if is_url(location) else Mapped(location)


class Mapped:
    """Local file, each range of which is mapped anew.

    So a range's pages are given back when its arrays are dropped, and resident memory is that of
    the ranges in use, whatever the file's size.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        # Of a pipe, opening it would wait for its other end.
        if not stat.S_ISREG(os.stat(location).st_mode):
            raise DecodeError("it is a folder or a device, and no file")
        self._descriptor = os.open(location, os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(self._descriptor)
        self.size = found.st_size
        self._stamp = _stamp(found)

    def read(self, first: int, stop: int) -> memoryview:
        if stop <= first:
            return memoryview(b"")
        with self._as_opened(stop):
            return mapping.mapped(self._descriptor, first, stop, self.size)

    def lazily(self, first: int, stop: int) -> memoryview:
        """Bytes [first, stop) whose pages come as they are touched. Raises ``DecodeError``."""
        if stop <= first:
            return memoryview(b"")
        with self._as_opened(stop):
            return mapping.lazily(self._descriptor, first, stop)

    def outline(self, *ranges: tuple[int, int]) -> memoryview:
        return self.lazily(0, self.size)

    def handle(self) -> str:
        return self.location

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    @contextmanager
    def _as_opened(self, stop: int) -> Iterator[None]:
        """Raise ``DecodeError`` unless the file is as it was opened, and has ``stop`` bytes."""
        self._check(stop)
        try:
            yield
        except ValueError:  # too short by now
            self._check(stop)
            raise

    def _check(self, stop: int) -> None:
        found = os.fstat(self._descriptor)
        if found.st_size < stop:
            raise DecodeError(
                f"the file was cut to {found.st_size:,} bytes since it was opened with "
                f"{self.size:,}"
            )
        if _stamp(found) != self._stamp:
            raise DecodeError("the file was written to since it was opened")


class Fetched:
    """File of one of fsspec's file systems, each range of which is fetched into memory."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._files, self._path = file_system(location)
        with library_errors("it"):
            size = self._files.info(self._path).get("size")
        if size is None:
            raise DecodeError("its server does not say how long it is: copy it to a disk")
        self.size = int(size)

    def read(self, first: int, stop: int) -> memoryview:
        if stop <= first:
            return memoryview(b"")
        with library_errors(f"bytes {first:,} to {stop:,}"):
            found = self._files.cat_file(self._path, start=first, end=stop)
        if len(found) > stop - first:
            raise DecodeError(
                "its server does not answer byte ranges, but with the whole file: copy it to a disk"
            )
        if len(found) < stop - first:
            raise DecodeError(
                f"of bytes {first:,} to {stop:,} only {len(found):,} came: the file was cut since "
                f"it was opened with {self.size:,} bytes"
            )
        return memoryview(found)

    def outline(self, *ranges: tuple[int, int]) -> memoryview:
        if not self.size:
            return memoryview(b"")
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
        body = memoryview(mmap.mmap(-1, self.size, flags=flags))
        for begin, end in ranges:
            first, stop = max(0, begin), min(end, self.size)
            if first < stop:
                body[first:stop] = self.read(first, stop)
        return body

    def handle(self) -> BinaryIO:
        with library_errors("it"):
            return cast(BinaryIO, self._files.open(self._path, "rb", cache_type="readahead"))

    def close(self) -> None:
        """Nothing is held open."""


def file_system(location: str) -> tuple[Any, str]:
    """Return fsspec's file system of the URL ``location``, and the path that it has there.

    Raises ``DecodeError`` for a protocol that fsspec does not know, and ``MissingPackage``.
    """
    with extra("bulk", f"{location}: a URL"):
        import fsspec
    try:
        files, path = fsspec.core.url_to_fs(location)
    except ImportError as error:
        # fsspec's own text names the package: s3fs, gcsfs.
        raise DecodeError(str(error)) from None
    except ValueError as error:
        raise DecodeError(f"{error}") from None
    return files, path


def fingerprint(location: str) -> str:
    """Text that changes when the file or folder at ``location`` does.

    Of local files sizes and times of change, of others what the file system says: an ETag, a
    version, a size. Raises ``DecodeError``, ``MissingPackage`` and ``OSError``.
    """
    if not is_url(location):
        found = os.stat(location)
        if not stat.S_ISDIR(found.st_mode):
            return _stamp(found)
        return _digest(f"{name}:{_stamp(each)}" for name, each in _local_files(location))
    files, path = file_system(location)
    with library_errors("it"):
        files.invalidate_cache()
        if files.isdir(path) and suffix(location) == ".zarr":
            return _digest(
                f"{name.removeprefix(path)}:{_told(found)}"
                for name, found in sorted(files.find(path, detail=True).items())
            )
        # For fsspec, files of HTTP never change.
        if urlsplit(path).scheme in ("http", "https"):
            return _told(files.info(path))
        return str(files.ukey(path))


def _told(info: dict[str, Any]) -> str:
    return ",".join(f"{fact}={info[fact]}" for fact in _FACTS if info.get(fact) is not None)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _local_files(location: str) -> Iterator[tuple[str, os.stat_result]]:
    for folder, folders, names in os.walk(location):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            yield os.path.relpath(path, location), os.stat(path)


def _stamp(found: os.stat_result) -> str:
    return f"{found.st_size}@{found.st_mtime_ns}"


def offset(body: memoryview, part: Any) -> int:
    """Offset in ``body`` of ``part``, an array or a memoryview that is a view of it."""
    view = np.asarray(part)
    return _address(view) - _address(np.asarray(body)) if view.size else 0


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


@contextmanager
def library_errors(part: str) -> Iterator[None]:
    """Raise what a library says of ``part``, a member or a range, as ``DecodeError``.

    Readers of damaged files raise whatever their insides meet, and file systems what their
    packages have: ``Exception`` is the only class that they share.
    """
    try:
        yield
    except (DecodeError, RequestError, MemoryError):
        raise
    except FileNotFoundError:
        raise DecodeError(f"{part} is not there any more, or never was") from None
    except Exception as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        with suppress(IndexError):
            text = text.strip().splitlines()[0]
        raise DecodeError(f"{part} cannot be read: {text}") from error
