"""Plugin of Dask's workers: threads of the kernels, and kernels compiled once a machine.

A worker imports this module before it imports the kernels, so nothing here imports these at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin

from service import VERSION

_THREADS = "NUMBA_NUM_THREADS"


class Prepared(WorkerPlugin):
    """Plugin that makes a worker ready to score pieces of ``tasks``, before it is given any.

    Dask leaves Numba at a thread a core in every worker. Each worker gets as many as it has tasks
    at a time. Workers that start later get the plugin from the scheduler.
    """

    def __init__(self, tasks: list[bytes]) -> None:
        self.name = "lossd"
        self.idempotent = False  # that of another run is replaced
        self._tasks, self._version = tasks, VERSION

    async def setup(self, worker: Any) -> None:
        """Set the threads, import the kernels, and compile what is missing.

        Raises ``RuntimeError`` where this worker's lossd is another version.
        """
        if self._version != VERSION:
            raise RuntimeError(
                f"the worker {worker.address} has lossd {VERSION}, and the client has"
                f" {self._version}: two versions may differ in the last bits of a loss"
            )
        if "numba" not in sys.modules:
            os.environ[_THREADS] = str(worker.state.nthreads)
        await asyncio.to_thread(_prepare, self._tasks)


def _prepare(tasks: list[bytes]) -> None:
    from service.bulk.work import prepare

    prepare(tasks)
