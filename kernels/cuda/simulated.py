"""Python versions of ``hardware``'s operations, for Numba's CUDA simulator.

The simulator runs each thread of a block as a Python thread, and has neither warps nor libdevice.
float32 stays float32, so that the arithmetic is the GPU's but for the last bit of an exponential.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

WARP = 2


def device(function: Any) -> Any:
    return function


def kernel(threads: int, resident: int = 0) -> Callable[[Any], Any]:
    return cuda.jit


class _Adopted:
    """Host memory, which is the simulator's device memory too."""

    def __init__(self, interface: dict[str, Any], owner: Any) -> None:
        self.__array_interface__, self.owner = interface, owner


def adopted(interface: dict[str, Any], owner: Any) -> Any:
    return FakeCUDAArray(np.asarray(_Adopted(interface, owner)))


# Functions that use names of ``cuda`` have to be known to the simulator.
team = cuda.jit(device=True)
exp2 = np.exp2


def fma(a: Any, b: Any, c: Any) -> Any:
    wide = np.longdouble if isinstance(a, np.float64) else np.float64
    return type(a)(wide(a) * wide(b) + wide(c))


def two_to_float32(n: Any) -> Any:
    return np.float32(0.0 if n < -126 else 2.0 ** float(n))


def two_to_float64(n: Any) -> Any:
    return np.float64(0.0 if n < -1022 else 2.0 ** float(n))


def swapped(value: Any, distance: int) -> Any:
    """``value`` of another lane, of any type: here a whole tuple at once."""
    thread: Any = threading.current_thread()
    slots = thread._manager.__dict__.setdefault("slots", {})
    slots[thread.thread_id] = value
    thread.syncthreads()
    other = slots[thread.thread_id ^ distance]
    thread.syncthreads()
    return other


def element(array: Any, index: int) -> Any:
    assert 0 <= index < array.size, f"{index} is outside of an array of {array.size}"
    value = array[index]
    if array.dtype == np.uint16:
        return (np.uint32(value) << np.uint32(16)).view(np.float32)
    if array.dtype == np.int16:
        return np.float32(value.view(np.float16))
    return value


def vector(array: Any, index: int) -> Any:
    assert aligned(array, index)
    return first_of_vector(array, index, 16 // array.itemsize)


def first_of_vector(array: Any, index: int, count: int) -> Any:
    zero = np.float64(0) if array.dtype == np.float64 else np.float32(0)
    width = 16 // array.itemsize
    return tuple(element(array, index + k) if k < count else zero for k in range(width))


def aligned(array: Any, index: int) -> bool:
    """Test ``index`` alone, as if every array began on a multiple of 16, as on a GPU."""
    return index * array.itemsize % 16 == 0
