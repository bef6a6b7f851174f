"""Shutdown: SIGTERM is known at once, a drain, and a process whose GPU failed ends in seconds."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from kernels import DeviceFailed
from service.process import DEVICE_FAILED
from service.request.operation import Service

# Seconds in which other answers, such as those that the CPU computes, may still be given after a
# GPU failure. Requests that need the GPU have failed by then.
LAST_ANSWERS = 3.0
_LOOK = 0.1

_log = logging.getLogger("uvicorn.lossd")


# Signal with which a supervisor has its workers drain: it ends none.
DRAIN = getattr(signal, "SIGUSR1", None)


@contextmanager
def on_signal(number: int | None, call: Callable[[], object]) -> Iterator[None]:
    """Have a signal call ``call``, then the server's own handler, for the time of the context.

    The server itself acts on the signal at its next turn, up to 0.1 s later. Nothing changes where
    it has no handler, or outside the main thread.
    """
    before = None if number is None else signal.getsignal(number)
    if (
        number is None
        or not callable(before)
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        call()
        before(number, frame)

    signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)


class Stages:
    """Stages of the end: drained, for ``seconds``, then stopped; a second signal skips the rest.

    ``drain`` and ``stop`` are called on the event loop that makes this.
    """

    def __init__(
        self, seconds: float, drain: Callable[[], object], stop: Callable[[], object]
    ) -> None:
        self._seconds, self._drain, self._stop = seconds, drain, stop
        self._loop = asyncio.get_running_loop()
        self._drained: asyncio.TimerHandle | None = None

    def signalled(self) -> None:
        """Begin the next stage; may be called in a signal's handler."""
        self._loop.call_soon_threadsafe(self._next)

    def drain(self) -> None:
        """Drain until the next signal; may be called in a signal's handler."""
        self._loop.call_soon_threadsafe(self._drain)

    def _next(self) -> None:
        self._drain()
        if self._drained is None and self._seconds:
            self._drained = self._loop.call_later(self._seconds, self._stop)
            return
        if self._drained is not None:
            self._drained.cancel()
        self._stop()


class GpuFailure:
    """Shutdown after the first GPU failure; made on the event loop that serves.

    ``fail(status)`` ends the process.
    """

    def __init__(self, service: Service, fail: Callable[[int], None]) -> None:
        self._service = service
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Task[None] | None = None

    def report(self, error: DeviceFailed) -> None:
        """Begin the shutdown; may be called in any thread."""
        self._loop.call_soon_threadsafe(self._begin, error)

    def _begin(self, error: DeviceFailed) -> None:
        if self._ending is not None:
            return
        _log.critical("%s: this process ends, for another to take its place", error)
        self._service.ready = False
        self._service.why_not_ready = "the GPU failed, and another process has to take over"
        self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        last = time.perf_counter() + LAST_ANSWERS
        while time.perf_counter() < last:
            await asyncio.sleep(_LOOK)
            if not self._service.budget.leased:
                break
        self._fail(DEVICE_FAILED)
