"""Executor of a Dask cluster: an existing one, or one of processes on this machine.

What travels are tasks, which name files, and the bytes of partials: never logits.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

from service.bulk.executors import ExecutorLost
from service.errors import InvalidOption

T = TypeVar("T")
# Seconds to reach the scheduler, and until it has a worker.
_CONNECT, _WORKERS = 10.0, 60.0
_LOOPBACK = "127.0.0.1:0"
# Seconds that closing may take, and what is waited for where the run is to end at once.
_CLOSE, _END = 30.0, 0.1
# Pieces in flight at least: a cluster that adapts starts workers for what waits.
_LEAST = 16
# Times that Dask gives a piece to another worker where one dies: it may be what kills them.
_DEATHS = 3


class Dask(Executor):
    """Executor on the Dask cluster at ``address``; None: one of ``workers`` processes, for itself.

    ``samples`` are some of the tasks: kernels that these need are compiled first, once a machine.
    Raises ``InvalidOption`` where there is no Dask, no scheduler, no worker, or another version of
    lossd on one.
    """

    def __init__(
        self, address: str | None, samples: Sequence[bytes] = (), workers: int = 1
    ) -> None:
        try:
            import dask
            from distributed import Client, LocalCluster

            from service.bulk.executors.dask_worker import Prepared
        except ImportError as error:
            raise InvalidOption(
                f'Dask is not installed ({error}): pip install "lossd[dask]"', field="scheduler"
            ) from None
        _silence()
        dask.config.set({"distributed.scheduler.allowed-failures": _DEATHS})
        self._address = address
        self._lost = False
        with ExitStack() as stack:
            self._cluster = None
            if address is None:
                runner = _deaf_loop()
                stack.callback(runner.stop)
                # No limit of memory: Dask would count the pages of mapped files. Nothing listens
                # beyond the loopback, nor on Dask's own port, which another cluster may have.
                self._cluster = LocalCluster(
                    loop=runner.loop,
                    n_workers=workers,
                    threads_per_worker=1,
                    memory_limit=0,
                    silence_logs=logging.CRITICAL,
                    dashboard_address=_LOOPBACK,
                    worker_dashboard_address=_LOOPBACK,
                )
                stack.callback(self._cluster.close, timeout=_CLOSE)
            try:
                self._client = Client(
                    self._cluster or address, timeout=_CONNECT, set_as_default=False
                )
            except (OSError, ValueError, TypeError) as error:
                reason = f"no Dask scheduler can be reached at {address} ({error})"
                raise InvalidOption(reason, field="scheduler") from None
            stack.callback(self._client.close, timeout=_CLOSE)
            self._wait_for_workers()
            try:
                self._client.register_plugin(Prepared(list(samples)))
            except Exception as error:  # whatever a worker raised, or that it lacks lossd
                raise InvalidOption(
                    f"the workers of {self._where} cannot score: {error}; they need lossd of this"
                    " version",
                    field="scheduler",
                ) from None
            self._executor = self._client.get_executor(pure=False)
            self._ends = stack.pop_all()

    def _wait_for_workers(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=_WORKERS)
        except TimeoutError:
            raise InvalidOption(
                f"the Dask scheduler at {self._address} has had no worker for {_WORKERS:.0f} s",
                field="scheduler",
            ) from None

    @property
    def workers(self) -> int:
        """Pieces that are computed at a time; at least as many as a growing cluster looks for."""
        threads = sum(self._client.nthreads().values())
        return int(threads) if self._cluster else max(int(threads), _LEAST)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have a worker call ``fn``. Raises ``ExecutorLost`` once the scheduler is gone."""
        if self._lost or self._client.status != "running":
            self._lost = True
            raise ExecutorLost(
                f"the Dask scheduler at {self._where} is gone; a run with a journal goes on where"
                " it was once there is one again"
            )
        future: Future[T] = self._executor.submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End: at once with ``cancel_futures``, else when all pieces are done."""
        if not cancel_futures:
            with suppress(Exception):
                self._executor.shutdown(wait=wait)
            with suppress(Exception):
                self._ends.close()
            return
        # Closing asks every process, and waits for each.
        closing = threading.Thread(target=self._ends.close, daemon=True)
        closing.start()
        closing.join(_END)
        if closing.is_alive() and self._cluster is not None:
            for process in multiprocessing.active_children():
                process.kill()
            with suppress(AttributeError, KeyError):  # what Dask would close again at the exit
                type(self._cluster)._instances.discard(self._cluster)

    @property
    def _where(self) -> str:
        return self._address or "this machine"


def _deaf_loop() -> Any:
    """Event loop in a thread, whose processes do not get a terminal's Ctrl-C: this one ends them.

    Blocked signals are inherited by threads and processes.
    """
    from multiprocessing import resource_tracker

    from distributed.utils import LoopRunner

    resource_tracker.ensure_running()  # else it unblocks them, in the thread that first needs it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner = LoopRunner(asynchronous=False)
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return runner


def _silence() -> None:
    """Leave lost connections and workers to the run's own messages."""
    for name in logging.root.manager.loggerDict:
        if name.partition(".")[0] in ("asyncio", "distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
