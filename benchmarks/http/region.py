"""A system shared memory region that holds a request's tensors."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.client import Client, post
from benchmarks.problems import Array
from benchmarks.requests import checked


@contextmanager
def region(client: Client, name: str, tensors: Mapping[str, Array]) -> Iterator[Array]:
    """Register a region that holds ``tensors`` one after the other; yields its bytes.

    Linux only.
    """
    size = sum(array.nbytes for array in tensors.values())
    key = f"lossd-{name}-{os.getpid()}"
    file = Path("/dev/shm", key)
    try:
        with file.open("xb+") as opened:
            opened.truncate(size)
            whole = np.frombuffer(mmap.mmap(opened.fileno(), size), np.uint8)
        np.concatenate([array.reshape(-1).view(np.uint8) for array in tensors.values()], out=whole)
        path = f"/v2/systemsharedmemory/region/{name}"
        description = json.dumps({"key": key, "byte_size": size}).encode()
        checked(client.exchange(post(f"{path}/register", [description])))
        yield whole
        checked(client.exchange(post(f"{path}/unregister", [])))
    finally:
        file.unlink(missing_ok=True)
