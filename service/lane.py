"""Time: one thread that runs what is handed to it, one thing after another.

Two parallel kernels launched at once abort the process on Numba's workqueue layer, and share one
memory bus on any other: so all kernels run in one lane.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from service.errors import Overloaded

T = TypeVar("T")


class Lane:
    """One thread and a bounded queue before it.

    ``length`` is how many pieces of work may wait, besides the one that runs.
    """

    def __init__(self, name: str, length: int) -> None:
        self._length = length
        self._queue: deque[_Work] = deque()
        self._wake = threading.Condition()
        self._closed = False
        # A daemon: a shutdown must not wait for a kernel that is being compiled.
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many pieces of work wait; the one that runs is not counted."""
        return len(self._queue)

    async def run(self, function: Callable[[], T]) -> T:
        """Await ``function()`` called in the lane's thread.

        Raises ``Overloaded`` at once where the queue is full or the lane closed. Work cancelled
        before it starts never runs, and is forgotten with all that it holds.
        """
        work = _Work(function)
        del function
        with self._wake:
            if self._closed or len(self._queue) >= self._length:
                raise Overloaded("too many requests are waiting already")
            self._queue.append(work)
            self._wake.notify()
        try:
            result: T = await work.future
            return result
        except asyncio.CancelledError:
            with self._wake, suppress(ValueError):
                self._queue.remove(work)
            # This exception's traceback keeps this frame, so the frame must let go of the rest.
            work.function = None
            raise

    def close(self, timeout: float = 1.0) -> None:
        """Refuse new work, drop what waits, and give what runs ``timeout`` seconds to end."""
        with self._wake:
            self._closed = True
            dropped, self._queue = self._queue, deque()
            self._wake.notify()
        for work in dropped:
            work.settle(None, Overloaded("the server is shutting down"))
        self._thread.join(timeout)

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not self._queue:
                    if self._closed:
                        return
                    self._wake.wait()
                work = self._queue.popleft()
            work.run()
            del work  # or the last request's tensors live until the next one


class _Work:
    """A call to make in the lane, and the future that a coroutine awaits meanwhile."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function: Callable[[], Any] | None = function
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()

    def run(self) -> None:
        function, self.function = self.function, None
        if function is None:
            return
        try:
            result, error = function(), None
        except BaseException as raised:
            result, error = None, raised
        del function  # before anybody learns of the result
        self.settle(result, error)

    def settle(self, result: Any, error: BaseException | None) -> None:
        # A loop that was closed meanwhile has nobody left to tell.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._deliver, result, error)

    def _deliver(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)
