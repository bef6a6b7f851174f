"""Dispatch of problems to the CPU or a GPU.

``kernels.cuda`` is imported when a GPU is asked for, and not before: it takes a second, and its
packages are an extra.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from kernels import specialisations
from kernels.cpu.launch import divergence, loss
from kernels.divergence import Divergence
from kernels.errors import DeviceUnavailable
from kernels.plan import Computed, finish
from kernels.problem import Problem
from kernels.specialisations import AnySpecialisation

_DLPACK_CUDA = 2  # of dlpack.h's device types


def target(device: str) -> str:
    """Target, "cpu" or "cuda", for one of ``problem.DEVICES``; "auto" prefers a usable GPU.

    Raises ``DeviceUnavailable`` for "cuda" without a usable GPU.
    """
    if device == "cpu":
        return "cpu"
    why = why_no_gpu()
    if why is None:
        return "cuda"
    if device == "auto":
        return "cpu"
    raise DeviceUnavailable(why)


@lru_cache
def why_no_gpu() -> str | None:
    """Reason why this process cannot use a GPU, or None; found out once."""
    if find_spec("numba_cuda") is None:
        return 'device="cuda" needs numba-cuda: pip install ".[cuda]" in a checkout of lossd'
    try:
        from numba import cuda

        if cuda.is_available():
            return None
        return f'device="cuda" needs an NVIDIA GPU and its driver: {_driver_error(cuda)}'
    except Exception as error:  # numba-cuda has many classes for what is missing
        return f'device="cuda" cannot be used: {_in_one_line(error)}'


def _driver_error(cuda: Any) -> str:
    try:
        cuda.current_context()
    except Exception as error:
        return _in_one_line(error)
    return "the CUDA toolkit's libraries are missing or too old"


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(" :")
    return (text or type(error).__name__)[:200]


def in_steps(
    problem: Problem, wanted: tuple[str, ...], upstream: float = 1.0, step: int | None = None
) -> Generator[int, None, Computed]:
    """``launch.loss.in_steps`` of the CPU or the GPU, by ``problem.device``.

    The GPU's waits for all of the logits, and holds none of its memory before. Raises
    ``ImpossibleLabel``, ``DeviceUnavailable``, ``DeviceOutOfMemory`` and ``DeviceFailed``.
    """
    if target(problem.device) == "cpu":
        return (yield from loss.in_steps(problem, wanted, upstream, step))
    from kernels.cuda.launch import loss as on_device

    return (yield from on_device.in_steps(problem, wanted, upstream, step))


def divergence_in_steps(
    problem: Divergence, wanted: tuple[str, ...], upstream: float = 1.0, step: int | None = None
) -> Generator[int, None, Computed]:
    """``launch.divergence.in_steps`` of the CPU or the GPU; waits and raises as ``in_steps``."""
    if target(problem.device) == "cpu":
        return (yield from divergence.in_steps(problem, wanted, upstream, step))
    from kernels.cuda.launch import divergence as on_device

    return (yield from on_device.in_steps(problem, wanted, upstream, step))


def lies_on_gpu(array: Any) -> bool:
    """True for another library's array on a GPU, by DLPack or ``__cuda_array_interface__``.

    Imports nothing of CUDA.
    """
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__dlpack_device__"):
        return int(array.__dlpack_device__()[0]) == _DLPACK_CUDA
    return hasattr(array, "__cuda_array_interface__")


def prepare(memory_bytes: int = 0, processes: int = 1) -> None:
    """Compile the GPU's common kernels, and check them by the worked example.

    ``memory_bytes`` bounds the device memory that calls hold at once; 0: this process's share of
    the free memory, where ``processes`` share the GPU. Raises as ``in_steps`` does, and
    ``SelfTestFailed``.
    """
    from kernels.cuda.device import memory
    from kernels.cuda.launch import warm

    memory.set_budget(memory_bytes or memory.share_of_free(processes))
    warm.compile_common()


def compute(problem: Problem, wanted: tuple[str, ...], upstream: float = 1.0) -> Computed:
    """Run ``in_steps`` at once."""
    return finish(in_steps(problem, wanted, upstream))


def quick(problem: Problem | Divergence, wanted: tuple[str, ...] = ()) -> bool:
    """Return True if the problem takes well below a millisecond on this thread, all compiled."""
    if problem.device != "cpu":
        return False
    if isinstance(problem, Problem):
        return loss.quick(problem, wanted)
    return divergence.quick(problem)


def uncompiled(
    problem: Problem | Divergence, wanted: tuple[str, ...] = ()
) -> tuple[AnySpecialisation, ...]:
    """``specialisations.uncompiled``; a GPU's kernels are compiled when they are launched."""
    return specialisations.uncompiled(problem, wanted) if problem.device == "cpu" else ()


def window(problem: Problem | Divergence, step: int) -> int | None:
    """``cpu.launch.loss.window``; None for a GPU, which waits for all of the logits."""
    if problem.device != "cpu":
        return None
    if isinstance(problem, Problem):
        return loss.window(problem, step)
    return divergence.window(problem, step)
