"""Executor that has lossd servers compute the outputs that partials are made of."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np

from kernels import InvalidInput
from kernels.plan import Computed, ImpossibleLabel
from kernels.problem import Problem
from service.bulk.executors import ExecutorLost
from service.bulk.executors.fleet import EACH, Fleet
from service.bulk.executors.inference import request_of
from service.bulk.executors.server import Server, servers_of
from service.bulk.work import score_piece

T = TypeVar("T")
# Sums of blocks are made of the losses themselves: blocks of a piece are not those of the corpus.
_NO_BLOCKS = np.empty((0, 2))


class Servers(ThreadPoolExecutor):
    """Executor of threads that read pieces, send them to servers, and make partials of answers.

    ``urls`` are the servers', ``token`` is what they ask for, if they do. Raises ``InvalidOption``
    for servers of another kind or version, and where none can be reached.
    """

    def __init__(self, urls: Sequence[str], token: str | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._asked: set[Future[Any]] = set()
        self._lock, self._ended = threading.Lock(), False
        servers = servers_of(urls)
        self.workers = EACH * len(servers)
        super().__init__(self.workers, thread_name_prefix="lossd-servers")
        self._thread.start()
        try:
            self.fleet = self._wait(_opened(servers, token))
        except BaseException:
            self._stop()
            raise

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have ``fn``, which is ``score_piece``, called with a task.

        Raises ``ExecutorLost`` once no server has answered for minutes.
        """
        if fn is not score_piece:
            raise ValueError("servers score pieces, and nothing else")
        if self.fleet.lost:
            raise ExecutorLost(
                f"{self.fleet.lost}; a run with a journal goes on where it was once they do"
            )
        score = partial(fn, compute=self._compute, predicting=True)
        return super().submit(score, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End: with ``cancel_futures`` at once, requests on their way included."""
        if cancel_futures:
            with self._lock:
                self._ended = True
                asked = list(self._asked)
            for future in asked:
                future.cancel()
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait and self._thread.is_alive():
            with suppress(Exception):
                self._wait(self.fleet.close(), always=True)
            self._stop()

    def _compute(self, problem: Problem, names: tuple[str, ...]) -> Computed:
        """Compute arrays of ``problem`` by a server, as ``kernels.devices.compute`` does here."""
        try:
            arrays = self._wait(self.fleet.arrays(request_of(problem, names)))
        except InvalidInput as error:
            if error.field == "labels" and error.position is not None:
                place = error.position[: len(problem.shape)]
                raise ImpossibleLabel(int(np.ravel_multi_index(place, problem.shape))) from None
            raise
        return _NO_BLOCKS, {name: array[: problem.positions] for name, array in arrays.items()}

    def _wait(self, work: Coroutine[Any, Any, T], always: bool = False) -> T:
        """Run ``work`` on the event loop; raises ``CancelledError`` if the executor ends first."""
        with self._lock:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._asked.add(future)
            if self._ended and not always:
                future.cancel()
        try:
            return future.result()
        finally:
            with self._lock:
                self._asked.discard(future)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


async def _opened(servers: list[Server], token: str | None) -> Fleet:
    fleet = Fleet(servers, token)
    try:
        await fleet.check()
    except BaseException:
        await fleet.close()
        raise
    return fleet
