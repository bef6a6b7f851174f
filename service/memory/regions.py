"""Shared memory regions that clients on this machine register, to pass tensors without a copy.

Keys are names, never paths. Regions are neither created nor unlinked here: Python's own
``SharedMemory`` would have its resource tracker unlink them when the service ends.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from service.codecs.base import shown
from service.codecs.v2.request import Region
from service.errors import NotOffered, Overloaded, UnknownRegion, UnusableRegion
from service.memory.pages import Bytes
from service.memory.sigbus import MOST, TooManyMappings, Watched, install

# Folder of shm_open's names on Linux; Python has no public shm_open.
_FOLDER = "/dev/shm/"
# No hidden files, and no slashes, so nothing outside the folder.
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}")
# Bytes of a region's name in UTF-8, as of a key: bounds the list of all regions.
_LONGEST_NAME = 256
# Errors of the whole system, not of one region: no file descriptors, no memory.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
# Does not wait for a FIFO's other end, and follows no link.
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered region, mapped until it is unregistered and no request uses it.

    To map 256 MiB for each request would take twice as long as to compute their losses. ``key`` is
    the system's name of the region; ``offset`` and ``size`` are in bytes. ``file``: device, inode.
    """

    name: str
    key: str
    offset: int
    size: int
    memory: mmap.mmap
    file: tuple[int, int]
    watched: Watched

    def check(self) -> None:
        """Raise ``UnusableRegion`` if the client has shrunk the region."""
        if self.watched.lost or self.memory.size() < self.offset + self.size:
            raise UnusableRegion(
                f"shared memory region {shown(self.name)} was made smaller after it was"
                " registered: register it again",
                field="shared_memory_region",
            )


class Regions:
    """Registry of this process's regions.

    ``allowed``: whether clients may register any. ``prefix``: required start of their keys.
    """

    def __init__(self, allowed: bool, prefix: str | None = None) -> None:
        self.allowed = allowed
        if allowed:
            install()
        self._prefix = prefix or ""
        self._regions: dict[str, Registered] = {}

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Map ``size`` bytes of the shared memory ``key`` from byte ``offset`` on, as ``name``.

        Raises ``NotOffered`` where regions are not allowed, ``UnusableRegion`` where it cannot
        be mapped, ``Overloaded`` where the system has no descriptors or memory left.
        """
        if not self.allowed:
            raise NotOffered(
                "shared memory is disabled: start the server with --allow-shared-memory"
            )
        length = len(name.encode("utf-8", "surrogatepass"))
        if length > _LONGEST_NAME:
            raise UnusableRegion(
                f"a shared memory region's name may have at most {_LONGEST_NAME} bytes in UTF-8,"
                f" not {length:,}",
                field="name",
            )
        if name in self._regions:
            raise UnusableRegion(
                f"shared memory region {shown(name)} is registered already: unregister it first",
                field="name",
            )
        memory, file = _mapped(self._checked(key), offset, size)
        try:
            watched = Watched(memory)
        except TooManyMappings:
            raise UnusableRegion(
                f"{MOST:,} shared memory regions are registered, or still used by requests, which"
                " is the most there may be: unregister one first",
                field="name",
            ) from None
        self._regions[name] = Registered(name, key, offset, size, memory, file, watched)

    def unregister(self, name: str | None) -> None:
        """Remove the region, or all (``None``); requests that use one keep it until they end."""
        if name is None:
            self._regions.clear()
        else:
            self._regions.pop(name, None)

    def status(self, name: str | None) -> list[dict[str, Any]]:
        """Describe one region, or all (``None``). Raises ``UnknownRegion``."""
        regions = self._regions.values() if name is None else [self.get(name)]
        return [
            {"name": one.name, "key": one.key, "offset": one.offset, "byte_size": one.size}
            for one in regions
        ]

    def get(self, name: str) -> Registered:
        """Return the region called ``name``. Raises ``UnknownRegion``."""
        if name not in self._regions:
            raise UnknownRegion(
                f"there is no shared memory region {shown(name)}: register it first",
                field="shared_memory_region",
            )
        return self._regions[name]

    def _checked(self, key: str) -> str:
        bare = key.lstrip("/")  # POSIX asks for one slash; clients write none, one or two
        if not _KEY.fullmatch(bare) or not bare.startswith(self._prefix):
            allowed = f" that starts with {self._prefix}" if self._prefix else ""
            raise UnusableRegion(
                f"shared memory key {shown(key)} must be a name{allowed}, not a path: letters,"
                " digits, underscores, hyphens, and dots but not at its start",
                field="key",
            )
        return bare


class _Span(NamedTuple):
    """Bytes ``first`` to ``end`` (exclusive) of a file."""

    file: tuple[int, int]
    first: int
    end: int


class Loan:
    """Regions that one request uses, each resolved at its first use."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._used: dict[str, Registered] = {}

    def view(self, region: Region) -> Bytes:
        """Bytes of ``region``, uint8 and writable; they stay mapped while the array lives.

        Raises ``UnknownRegion``, or ``UnusableRegion`` where it holds fewer bytes.
        """
        registered = self._used.get(region.name) or self._regions.get(region.name)
        if region.offset + region.size > registered.size:
            raise UnusableRegion(
                f"shared memory region {shown(region.name)} has {registered.size:,} bytes, and no"
                f" {region.size:,} from byte {region.offset:,} on",
                field="shared_memory_offset",
            )
        registered.check()
        self._used[region.name] = registered
        start = registered.offset + region.offset
        return np.frombuffer(registered.memory, np.uint8)[start : start + region.size]

    def check_apart(self, read: Mapping[str, Region], written: Mapping[str, Region]) -> None:
        """Raise ``UnusableRegion`` where a written tensor overlaps another.

        Bytes of files are compared, since one may be registered under several names.
        """
        spans = [(f"input {shown(name)}", self._span(region)) for name, region in read.items()]
        for name, region in written.items():
            output, span = f"output {shown(name)}", self._span(region)
            for other, its in spans:
                first, end = max(span.first, its.first), min(span.end, its.end)
                if span.file == its.file and first < end:
                    raise UnusableRegion(
                        f"{output} and {other} share {end - first:,} bytes of shared memory: give"
                        " each output bytes of its own",
                        field="outputs",
                    )
            spans.append((output, span))

    def _span(self, region: Region) -> _Span:
        registered = self._used[region.name]
        first = registered.offset + region.offset
        return _Span(registered.file, first, first + region.size)

    def check(self) -> None:
        """Raise ``UnusableRegion`` if any region in use has been shrunk."""
        for registered in self._used.values():
            registered.check()


def _mapped(key: str, offset: int, size: int) -> tuple[mmap.mmap, tuple[int, int]]:
    """Map the shared memory ``key`` from its start to ``offset + size``; return its file too."""
    try:
        descriptor = os.open(_FOLDER + key, _FLAGS)
    except OSError as error:
        raise _refused(key, "opened to read and write", error) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not 0 < size <= status.st_size - offset:
            raise _too_small(key, offset, size)
        try:
            memory = mmap.mmap(descriptor, offset + size)
        except ValueError:  # shrunk since fstat
            raise _too_small(key, offset, size) from None
        return memory, (status.st_dev, status.st_ino)
    except OSError as error:
        raise _refused(key, "mapped", error) from None
    finally:
        os.close(descriptor)


def _too_small(key: str, offset: int, size: int) -> UnusableRegion:
    return UnusableRegion(
        f"shared memory {shown(key)} does not have {size:,} bytes from byte {offset:,} on",
        field="byte_size",
    )


def _refused(key: str, what: str, error: OSError) -> UnusableRegion | Overloaded:
    """Error for a failed system call: ``Overloaded`` where the system is exhausted."""
    kind = Overloaded if error.errno in _EXHAUSTED else UnusableRegion
    return kind(f"shared memory {shown(key)} cannot be {what}: {error.strerror}", field="key")
