"""``python -m tests.service.compute.simulated``: lossd, whose GPU is Numba's simulator.

It needs NUMBA_ENABLE_CUDASIM=1. Where a problem has ``DEADLY`` classes, the GPU reads an illegal
address (700), and so does every later call of that process: a fault as CUDA shows it.
"""

from __future__ import annotations

import threading
from typing import Any

from numba.cuda.cudadrv.driver import CudaAPIError

from kernels.cuda.launch import loss
from kernels.cuda.launch.queue import Operands
from service import cli
from tests.kernels.cuda import simulator

DEADLY = 13
_launch = loss.__dict__["launch"]
_dead = threading.Event()


def driver_error(code: int) -> CudaAPIError:
    """The simulator's, as the real one is."""
    error = CudaAPIError("the test's own fault")
    error.code = code
    return error


def _launched(*arguments: Any) -> None:
    operands = next(item for item in arguments if isinstance(item, Operands))
    if operands.logits.classes == DEADLY:
        _dead.set()
    if _dead.is_set():
        raise driver_error(700)
    _launch(*arguments)


# Here, and not below: workers are spawned, and import this under another name.
simulator.quicken()
loss.__dict__["launch"] = _launched

if __name__ == "__main__":
    cli.main()
