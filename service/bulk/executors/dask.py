"""Executor of a Dask cluster: an existing one, or one of processes on this machine.

What travels are tasks, which name files, and the bytes of partials: never logits.
"""

from __future__ import annotations

import logging
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
# Seconds that the processes of a cluster of this machine have to end in.
_END = 0.5
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
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        dask.config.set({"distributed.scheduler.allowed-failures": _DEATHS})
        self._address = address
        self._lost = False
        with ExitStack() as stack:
            self._cluster = None
            if address is None:
                # No limit of memory: Dask would count the pages of mapped files. Nothing listens
                # beyond the loopback, nor on Dask's own port, which another cluster may have.
                self._cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    memory_limit=0,
                    dashboard_address=_LOOPBACK,
                    worker_dashboard_address=_LOOPBACK,
                )
                stack.callback(self._cluster.close, timeout=_END)
            try:
                self._client = Client(
                    self._cluster or address, timeout=_CONNECT, set_as_default=False
                )
            except (OSError, ValueError, TypeError) as error:
                reason = f"no Dask scheduler can be reached at {address} ({error})"
                raise InvalidOption(reason, field="scheduler") from None
            stack.callback(self._client.close, timeout=_END)
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
        with suppress(Exception):
            self._executor.shutdown(wait=wait and not cancel_futures)
        with suppress(Exception):
            self._ends.close()

    @property
    def _where(self) -> str:
        return self._address or "this machine"
