"""Executor of worker processes on this machine; see ``worker``, which each of them runs.

A process that dies takes the piece with it that it was at, and no other, and is replaced; a task
that it was given ahead goes to the next.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from service.bulk.executors import worker
from service.bulk.work import PieceError, score_piece

_Item: TypeAlias = tuple[bytes, "Future[bytes]"]
# Tasks that a process has at a time: the second begins without a wait for the driver's threads. And
# tasks in flight for each process with which it has them.
_GIVEN, EACH = 2, 3


class Processes(Executor):
    """Executor of ``workers`` processes, whose kernels use ``threads`` threads each.

    ``function``, of a module, takes bytes and returns bytes; it is all that can be submitted.
    """

    def __init__(
        self, workers: int, threads: int = 1, function: Callable[[bytes], bytes] = score_piece
    ) -> None:
        self._function = function
        self._environment = {
            **os.environ,
            "NUMBA_NUM_THREADS": str(threads),
            # NumPy's BLAS, which nothing here calls, would keep memory for each core.
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._closed = self._cancelled = False
        self._workers = workers
        self._threads = [
            threading.Thread(target=self._drive, args=(number,), daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def processes(self) -> list[int]:
        """Ids of the processes that run."""
        with self._lock:
            return [each.pid for each in self._processes.values() if each.poll() is None]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have ``function``, which ``fn`` must be, called with a task."""
        if fn is not self._function or len(args) != 1 or kwargs:
            raise ValueError(f"only {self._function.__name__} of one task can be submitted")
        if self._closed:
            raise RuntimeError("the executor was shut down")
        future: Future[bytes] = Future()
        self._queue.put((args[0], future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: at once with ``cancel_futures``, else when all tasks are done."""
        with self._lock:
            self._closed = True
            self._cancelled |= cancel_futures
            if cancel_futures:
                for process in self._processes.values():
                    process.kill()
        if cancel_futures:
            with suppress(Empty):
                while (item := self._queue.get_nowait()) is not None:
                    item[1].cancel()
        for _ in self._threads:
            self._queue.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _drive(self, number: int) -> None:
        """Pass tasks to one process, some ahead of its answers, and these to their futures."""
        process: subprocess.Popen[bytes] | None = None
        given: deque[_Item] = deque()
        asked = 0
        while self._take(given):
            future = given[0][1]
            running = future.set_running_or_notify_cancel()
            try:
                if not (running or asked):
                    continue
                if process is None:
                    process, asked = self._started(number), 0
                for task, _ in islice(given, asked, None):
                    worker.ask(process, task)
                asked = len(given)
                answer = worker.answered(process)
                if running:
                    future.set_result(answer)
            except Exception as error:
                if isinstance(error, EOFError):
                    assert process is not None
                    error, process = _died(process), None
                if running:
                    future.set_exception(error)
            finally:
                self._pop(given)
                asked = max(asked - 1, 0)
        if process is not None:
            _end(process)

    def _take(self, given: deque[_Item]) -> bool:
        """Add tasks to ``given``, those of one process; False if it has none and none will come.

        It waits for the first. Of those that it takes ahead, one is left for each process: they are
        done at the same time, or nearly so, in the end.
        """
        while not given or (len(given) < _GIVEN and self._queue.qsize() >= self._workers):
            try:
                item = self._queue.get(block=not given)
            except Empty:
                break
            if item is None:
                if given:
                    self._queue.put(None)  # for the time when these are answered
                    break
                return False
            given.append(item)
        return True

    def _pop(self, given: deque[_Item]) -> None:
        """Remove the task that was answered, and all others once these are cancelled."""
        given.popleft()
        if self._cancelled:
            for _, future in given:
                future.cancel()
            given.clear()

    def _started(self, number: int) -> subprocess.Popen[bytes]:
        name = f"{self._function.__module__}:{self._function.__qualname__}"
        with self._lock:
            if self._closed:
                raise PieceError("the executor was shut down")
            # A group of its own: a terminal's Ctrl-C is for the driver, which then ends it.
            process = self._processes[number] = subprocess.Popen(
                [sys.executable, "-P", "-m", worker.__name__, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
                process_group=0,
            )
        return process


def _end(process: subprocess.Popen[bytes]) -> int:
    """Close the pipes of ``process``, on which it ends; returns its status."""
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(OSError):
            pipe.close()
    return process.wait()


def _died(process: subprocess.Popen[bytes]) -> PieceError:
    status = _end(process)
    text = f"the process that scored it ended with status {status}"
    if status < 0:
        name = signal.Signals(-status).name
        why = {
            "SIGKILL": ": out of memory, maybe",
            "SIGBUS": ": the file was cut off while it was read, or its disk failed",
        }
        text = f"the process that scored it was ended by {name}{why.get(name, '')}"
    return PieceError(text)
