"""Shared memory as a client makes it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_numbers = itertools.count()


@contextmanager
def region(content: bytes | int, name: str = "lossd-test") -> Iterator[Path]:
    """A region that holds ``content``, or so many zeros, under a name of its own."""
    path = Path("/dev/shm") / f"{name}-{os.getpid()}-{next(_numbers)}"
    if isinstance(content, int):
        path.touch(0o600)
        os.truncate(path, content)
    else:
        path.write_bytes(content)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
