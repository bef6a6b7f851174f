"""Regions of shared memory that clients on this machine register, to send tensors without sending.

Only names are taken, never paths; regions are never created, and never unlinked. (Python's own
``SharedMemory`` would have the resource tracker unlink them when the service ends.)
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from service.codecs.base import shown
from service.codecs.infer_request import Region
from service.errors import NotOffered, UnknownRegion, UnusableRegion
from service.lost_memory import Watched, install

_Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

# Where shm_open, which Python does not have in public, opens its names on Linux.
_FOLDER = "/dev/shm/"
# Neither hidden files nor, without slashes, anything outside of the folder.
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}")
# Neither waits for a FIFO's other end nor follows a link.
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Registered:
    """A region, mapped from its registration on: to map 256 MiB anew takes twice as long as to
    compute their losses.

    ``key`` is the name that the system knows it by.
    """

    name: str
    key: str
    offset: int
    size: int
    memory: mmap.mmap
    watched: Watched

    def check(self) -> None:
        """Raise ``UnusableRegion`` if the client has taken any of it away."""
        if self.watched.lost or self.memory.size() < self.offset + self.size:
            raise UnusableRegion(
                f"shared memory region {shown(self.name)} was made smaller after it was"
                " registered: register it again",
                field="shared_memory_region",
            )

    def bytes(self) -> _Bytes:
        """All of it, for as long as the array lives, even if it is unregistered meanwhile."""
        return np.frombuffer(self.memory, np.uint8)[self.offset :]


class Regions:
    """The regions that are registered with this process.

    ``allowed``: whether any may be. ``prefix``: what their keys must start with.
    """

    def __init__(self, allowed: bool, prefix: str | None = None) -> None:
        self.allowed = allowed
        if allowed:
            install()
        self._prefix = prefix or ""
        self._regions: dict[str, Registered] = {}

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Map ``size`` bytes from ``offset`` on of the shared memory ``key`` under ``name``.

        Raises ``NotOffered`` where this is not allowed, ``UnusableRegion`` where it is impossible.
        """
        if not self.allowed:
            raise NotOffered(
                "shared memory is disabled: start the server with --allow-shared-memory"
            )
        if name in self._regions:
            raise UnusableRegion(
                f"shared memory region {shown(name)} is registered already: unregister it first",
                field="name",
            )
        memory = _mapped(self._checked(key), offset, size)
        self._regions[name] = Registered(name, key, offset, size, memory, Watched(memory))

    def unregister(self, name: str | None) -> None:
        """Forget the region, or all of them; what requests still use stays until they end."""
        if name is None:
            self._regions.clear()
        else:
            self._regions.pop(name, None)

    def status(self, name: str | None) -> list[dict[str, Any]]:
        """What is registered, or of one region: raises ``UnknownRegion`` where there is none."""
        regions = self._regions.values() if name is None else [self.get(name)]
        return [
            {
                "name": region.name,
                "key": region.key,
                "offset": region.offset,
                "byte_size": region.size,
            }
            for region in regions
        ]

    def get(self, name: str) -> Registered:
        """The region of that name; raises ``UnknownRegion`` where there is none."""
        if name not in self._regions:
            raise UnknownRegion(
                f"there is no shared memory region {shown(name)}: register it first",
                field="shared_memory_region",
            )
        return self._regions[name]

    def _checked(self, key: str) -> str:
        bare = key.lstrip("/")  # POSIX wants one slash, clients write none, one or two
        if not _KEY.fullmatch(bare) or not bare.startswith(self._prefix):
            allowed = f" that starts with {self._prefix}" if self._prefix else ""
            raise UnusableRegion(
                f"shared memory key {shown(key)} must be a name{allowed}, not a path: letters,"
                " digits, underscores, hyphens, and dots but not at its start",
                field="key",
            )
        return bare


class Loan:
    """The regions that one request uses, each as it was when it was first asked for."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._used: dict[str, Registered] = {}

    def view(self, region: Region) -> _Bytes:
        """The bytes of ``region``, writable.

        Raises ``UnknownRegion``, or ``UnusableRegion`` where it does not hold so many.
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
        return registered.bytes()[region.offset : region.offset + region.size]

    def check(self) -> None:
        """Raise ``UnusableRegion`` if anything that was viewed is there no more."""
        for registered in self._used.values():
            registered.check()


def _mapped(key: str, offset: int, size: int) -> mmap.mmap:
    """The shared memory ``key`` from its start to ``offset + size``."""
    try:
        descriptor = os.open(_FOLDER + key, _FLAGS)
    except OSError as error:
        raise UnusableRegion(
            f"shared memory {shown(key)} cannot be opened to read and write: {error.strerror}",
            field="key",
        ) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not 0 < size <= status.st_size - offset:
            raise UnusableRegion(
                f"shared memory {shown(key)} does not have {size:,} bytes from byte {offset:,} on",
                field="byte_size",
            )
        return mmap.mmap(descriptor, offset + size)
    except OSError as error:
        raise UnusableRegion(
            f"shared memory {shown(key)} cannot be mapped: {error.strerror}", field="key"
        ) from None
    finally:
        os.close(descriptor)
