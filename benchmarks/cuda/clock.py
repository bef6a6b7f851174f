"""Times of calls by events of the device, with a cold L2 cache; speeds of copies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda

from kernels.cuda.kinds import SIMULATED

# Bytes that are copied before each timed call, and to measure copies: twice that is several times
# the largest L2 cache, of 60 to 130 MB.
LARGE = 2**20 if SIMULATED else 2**28


class Clock:
    """Timer of calls on the legacy default stream, which PyTorch uses as well."""

    def __init__(self) -> None:
        self._source = cuda.device_array(LARGE, np.uint8)
        self._target = cuda.device_array(LARGE, np.uint8)

    def median(self, call: Callable[[], Any], rounds: int, cold: bool = True) -> float:
        """Median of the seconds between events before and after ``call``; ``cold``: L2 cleared."""
        return statistics.median(self._once(call, cold) for _ in range(rounds))

    def _once(self, call: Callable[[], Any], cold: bool) -> float:
        if cold:
            self.copy()
        if SIMULATED:
            return wall(call, 1)
        start, stop = (cuda.event(timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1e3

    def copy(self) -> None:
        """Copy LARGE bytes from device to device."""
        self._target.copy_to_device(self._source)

    def copied_per_second(self, rounds: int) -> float:
        """Bytes a second that a copy from device to device reads and writes."""
        self.copy()
        return 2 * LARGE / self.median(self.copy, rounds, cold=False)


def wall(call: Callable[[], Any], rounds: int) -> float:
    """Median of the seconds that ``call``, which waits for its result, takes."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def transfers(rounds: int) -> dict[str, float]:
    """Bytes a second from and to the host, pinned and not, and both ways at once."""
    device, other = (cuda.device_array(LARGE, np.uint8) for _ in range(2))
    pinned, more = (cuda.pinned_array(LARGE, np.uint8) for _ in range(2))
    plain = np.ones(LARGE, np.uint8)
    pinned[:], more[:] = 1, 1
    there, back = cuda.stream(), cuda.stream()

    def to_device() -> None:
        device.copy_to_device(pinned, there)
        there.synchronize()

    def to_host() -> None:
        other.copy_to_host(more, back)
        back.synchronize()

    def both() -> None:
        device.copy_to_device(pinned, there)
        other.copy_to_host(more, back)
        there.synchronize()
        back.synchronize()

    ways: dict[str, Callable[[], Any]] = {
        "host to device, pinned": to_device,
        "device to host, pinned": to_host,
        "both at once, pinned, each": both,
        "host to device, pageable": lambda: device.copy_to_device(plain),
        "host to pinned, by the CPU": lambda: np.copyto(pinned, plain),
    }
    for call in ways.values():
        call()
    return {name: LARGE / wall(call, rounds) for name, call in ways.items()}
