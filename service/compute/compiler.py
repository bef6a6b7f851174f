"""Compiler: kernels that a request needs and that are not compiled yet, made beside the lanes.

One at a time, in a process of its own: Numba holds the GIL for parts of the 13 s that a kernel
takes. On a busy machine a thread that compiled made the event loop late by up to 446 ms (42 ms in
one of 100 cases), a process by 130 ms (10 ms). The lanes go on with what is ready.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from zlib import crc32

from kernels import warm
from kernels.cache import folder
from kernels.compiled import one_process
from kernels.compiling import PROGRESS, Child, ChildFailed, Job
from kernels.specialisations import AnySpecialisation
from service.compute.lane import Lane
from service.errors import Compiling, Overloaded
from service.telemetry.counters import here

_log = logging.getLogger("uvicorn.lossd")


class Compiler:
    """Compiles kernels in a child process, one at a time, from a thread of its own.

    ``seconds`` is how long a request waits for its kernels; ``length``, how many kernels may wait
    for their turn.
    """

    def __init__(self, length: int, seconds: float) -> None:
        self.lane = Lane("lossd-compile", length)
        self._seconds = seconds
        self._tasks: dict[AnySpecialisation, asyncio.Task[None]] = {}
        self._child: Child | None = None
        self._closed = False

    async def compiled(self, wanted: tuple[AnySpecialisation, ...]) -> None:
        """Return once all of ``wanted`` is compiled.

        Raises ``Compiling`` where that takes too long, and goes on with it all the same;
        ``Overloaded`` where too many wait.
        """
        if not wanted:
            return
        tasks = {self._task(each) for each in wanted}
        _, pending = await asyncio.wait(tasks, timeout=self._seconds)
        if pending:
            raise Compiling(
                f"the kernel for this request ({wanted[0]}) is being compiled, which takes longer "
                f"than the {self._seconds:g} s that a request waits"
            )
        for task in tasks:
            error = task.exception()
            if isinstance(error, Overloaded):
                raise Overloaded(error.message)
            if error is not None:  # it was logged, and its traceback is for no single request
                raise RuntimeError(f"a kernel could not be compiled: {error}")

    def _task(self, wanted: AnySpecialisation) -> asyncio.Task[None]:
        task = self._tasks.get(wanted)
        if task is None:
            task = self._tasks[wanted] = asyncio.create_task(self._compiled(wanted))
            task.add_done_callback(lambda _: self._tasks.pop(wanted))
        return task

    async def _compiled(self, wanted: AnySpecialisation) -> None:
        started = time.perf_counter()
        running = asyncio.ensure_future(self.lane.call(partial(self._compile, warm.job(wanted))))
        while not (await asyncio.wait({running}, timeout=PROGRESS))[0]:
            seconds = time.perf_counter() - started
            _log.info("%s is being compiled, or waits for its turn: %.0f s", wanted, seconds)
        error = running.exception()
        if error is not None:
            if not isinstance(error, Overloaded):
                _log.error("%s could not be compiled", wanted, exc_info=error)
            raise error
        _log.info("%s is ready after %.1f s", wanted, time.perf_counter() - started)

    def _compile(self, job: Job) -> None:
        if self._closed or job.load():
            return
        _log.info("compiling %s, which a request asks for; others go on", job.name)
        # Of processes that share a cache, one compiles it, and the others then load it.
        with one_process(folder(), f"job.{crc32(job.name.encode()):08x}"):
            if job.load():
                return
            try:
                with Child(patient=True) as self._child:
                    if not self._closed:
                        self._child.compile_job(job)
            except ChildFailed as error:
                if not self._closed:
                    _log.warning("%s: compiling in this process, which holds up others", error)
            finally:
                self._child = None
            if not self._closed:
                job.run()
                here().add("kernel_compilations")

    def close(self) -> None:
        """Refuse what waits, and end the child."""
        self._closed = True
        child = self._child
        if child is not None:
            child.end()
        self.lane.close()
