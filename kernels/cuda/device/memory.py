"""Device memory, leased against a budget, and pinned memory to copy from and to.

Buffers of a finished call are kept for the next one, up to ``_KEPT`` sets: pinning a buffer takes
milliseconds, and freeing device memory waits for all running kernels.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import cuda

from kernels.errors import DeviceOutOfMemory
from kernels.problem import Array

# Tensors start on multiples of this many bytes, so that no memory transaction crosses two of them.
ALIGNMENT = 256
# Share of the free memory when the budget is made; the rest is for other processes, and
# fragmentation.
SHARE = 0.8
_KEPT = 4
_MOST = 2**50  # the simulator has infinitely many


class Budget:
    """Bytes of device memory that calls may hold at once, those kept for the next included."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.leased = 0
        self._idle: list[Buffers] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lease(self, size: int) -> Iterator[Buffers]:
        """Buffers of at least ``size`` bytes, on the device and pinned.

        Raises ``DeviceOutOfMemory`` where the budget or the device has no more.
        """
        buffers = self._take(size)
        try:
            yield buffers
        finally:
            with self._lock:
                self._idle.append(buffers)
                while len(self._idle) > _KEPT:
                    self.leased -= self._idle.pop(0).size

    def free(self) -> int:
        """Bytes that are not leased."""
        with self._lock:
            return self.total - self.leased + sum(buffers.size for buffers in self._idle)

    def drop(self) -> None:
        """Free the buffers that no call holds."""
        with self._lock:
            while self._idle:
                self.leased -= self._idle.pop().size

    def _take(self, size: int) -> Buffers:
        with self._lock:
            fitting = [buffers for buffers in self._idle if buffers.size >= size]
            if fitting:
                best = min(fitting, key=lambda buffers: buffers.size)
                self._idle.remove(best)
                return best
            while self._idle and self.leased + size > self.total:
                self.leased -= self._idle.pop(0).size
            if self.leased + size > self.total:
                raise DeviceOutOfMemory(
                    f"{size} bytes of device memory do not fit beside the {self.leased} of "
                    f"{self.total} that are in use"
                )
            self.leased += size
        try:
            return Buffers(size)
        except BaseException:
            with self._lock:
                self.leased -= size
            self.drop()
            raise


class Buffers:
    """Device memory and as much pinned memory, dealt out from their starts on."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._device = _on_device(size)
        self._pinned = _pinned(size)
        self.stream = cuda.stream()
        self._used = 0

    def rewind(self) -> None:
        """Make all memory available again."""
        self._used = 0

    def take(self, dtype: Any, count: int) -> tuple[Any, Array]:
        """Deal out ``count`` elements on the device, and as many pinned ones."""
        dtype = np.dtype(dtype)
        start, stop = self._used, self._used + count * dtype.itemsize
        assert stop <= self.size, "the caller counts what it takes"
        self._used = rounded(stop)
        return self._device[start:stop].view(dtype), self._pinned[start:stop].view(dtype)


def rounded(size: int) -> int:
    """Round ``size`` bytes up to ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _on_device(size: int) -> Any:
    return cuda.device_array(size, np.uint8)


def _pinned(size: int) -> Array:
    memory: Array = cuda.pinned_array(size, np.uint8)
    return memory


_budget: Budget | None = None
_budget_lock = threading.Lock()


def budget() -> Budget:
    """Budget of the process: ``share_of_free``, unless ``set_budget`` was called."""
    global _budget
    with _budget_lock:
        if _budget is None:
            _budget = Budget(share_of_free())
        return _budget


def set_budget(total: int) -> None:
    """Make ``total`` bytes the process's budget; running calls keep the old one."""
    global _budget
    with _budget_lock:
        _budget = Budget(total)


def share_of_free(processes: int = 1) -> int:
    """Bytes of free device memory for each of ``processes``."""
    free = cuda.current_context().get_memory_info()[0]
    return int(min(free, _MOST) * SHARE / processes)
