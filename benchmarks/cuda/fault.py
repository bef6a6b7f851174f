"""Server whose GPU can be made to fail: ``python -m benchmarks.cuda.fault serve ...``.

A problem of ``DEADLY`` classes launches a kernel that writes to an unmapped address, after which
CUDA answers every call of the process with CUDA_ERROR_ILLEGAL_ADDRESS (700). On the simulator that
error is raised instead.
"""

from __future__ import annotations

import threading
from typing import Any

from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError

from kernels.cuda.kinds import SIMULATED
from kernels.cuda.launch import loss
from kernels.cuda.launch.queue import Operands
from service import cli

DEADLY = 13
_ILLEGAL_ADDRESS = 700
_launch = loss.__dict__["launch"]
_dead = threading.Event()


def _write_anywhere(array: Any) -> None:
    array[2**44] = 1.0


def _fail(operands: Operands) -> None:
    _dead.set()
    if not SIMULATED:
        cuda.jit(_write_anywhere)[1, 1](operands.results.losses)
        cuda.synchronize()


def _launched(*arguments: Any) -> None:
    operands = next(item for item in arguments if isinstance(item, Operands))
    if operands.logits.classes == DEADLY:
        _fail(operands)
    if _dead.is_set() and SIMULATED:
        error = CudaAPIError("an illegal address")
        error.code = _ILLEGAL_ADDRESS
        raise error
    _launch(*arguments)


# At import: workers are spawned, and import this module under another name.
loss.__dict__["launch"] = _launched

if __name__ == "__main__":
    cli.main()
