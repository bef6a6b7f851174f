"""Lane: one thread that runs the work that is handed to it, a step at a time.

Two parallel kernels launched at once abort the process on Numba's workqueue layer, and share one
memory bus on any other: so all kernels that use threads run in one lane. Between two steps of a
large computation small ones overtake it.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from kernels.steps import Work
from service import regimes
from service.errors import Expired, Overloaded

T = TypeVar("T")
Outputs: TypeAlias = dict[str, np.ndarray[Any, Any]]
Steps: TypeAlias = Generator[int, None, Any]

_CLOSING = "the server is shutting down"


class Source(Protocol):
    """Body whose logits are still coming: ``filled`` bytes are there.

    ``progress`` is called with ``filled`` whenever there are more, on the event loop.
    """

    filled: int
    progress: Callable[[int], None]

    def discard(self, count: int) -> None:
        """Note, on the event loop, that none of the first ``count`` bytes is read any more."""


class Lane:
    """Thread with a bounded queue before it.

    ``length`` is how many pieces of work may wait, besides those that have begun; ``seconds`` how
    long work that is ``run`` may take, waiting for its turn included, but not for its bytes.
    """

    def __init__(self, name: str, length: int, seconds: float | None = None) -> None:
        self.length = length
        self._seconds = seconds
        self._numbers = count()
        self._small: deque[_Job] = deque()
        self._large: list[_Job] = []  # a heap: those that came first go on first
        self._burst = 0
        self._running: _Job | None = None
        self._wake = threading.Condition()
        self._closed = False
        # A daemon: a shutdown must not wait for a kernel that is being compiled.
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Count the pieces of work that wait for their first step."""
        with self._wake:
            return self._unbegun()

    async def call(self, function: Callable[[], T], seconds: float | None = None) -> T:
        """Await ``function()`` called in the lane's thread, as one step.

        Raises what it does, ``Overloaded`` as ``run``, and ``Expired`` where it has not returned
        within ``seconds``: if it was not called until then, it never is.
        """
        job = _Job(next(self._numbers), False, _once(function))
        del function
        result: T = await self._result(job, seconds)
        return result

    async def run(self, work: Work, source: Source | None = None, start: int = 0) -> Outputs:
        """Await the outputs of ``work``, whose logits begin at byte ``start`` of ``source``.

        A step waits, and others run, until its logits are there. Raises what the work raises,
        ``Expired`` where it takes too long, and ``Overloaded`` at once where the queue is full or
        the lane closed. Work that is cancelled is forgotten with all that it holds, at the latest
        after the step that runs.
        """
        small = work.elements <= regimes.OVERTAKING_LOGITS
        job = _Job(next(self._numbers), small, work.steps, source, start, work.window)
        del work
        result: Outputs = await self._result(job, self._seconds)
        return result

    async def _result(self, job: _Job, seconds: float | None) -> Any:
        left = seconds
        try:
            while True:
                self._enqueue(job)
                began = job.loop.time()
                needed = await self._turn(job, left, seconds)
                if needed is None:
                    return job.result
                if left is not None:
                    left -= job.loop.time() - began
                await job.arrival(needed)
        finally:
            self._forget(job)

    async def _turn(self, job: _Job, left: float | None, seconds: float | None) -> int | None:
        timeout = asyncio.timeout(left)
        try:
            async with timeout:
                return await job.turn
        except TimeoutError:
            if not timeout.expired():
                raise
            raise Expired(f"this has not been computed within {seconds:g} s") from None

    def _enqueue(self, job: _Job) -> None:
        job.turn = job.loop.create_future()
        with self._wake:
            if self._closed:
                raise Overloaded(_CLOSING)
            if not job.begun and self._unbegun() >= self.length:
                raise Overloaded("too many requests are waiting already")
            self._put(job)
            self._wake.notify()

    def _forget(self, job: _Job) -> None:
        # An exception's traceback keeps this job, so it must let go of all the rest.
        job.result = job.source = None
        with self._wake:
            job.forgotten = True
            job.turn = job.loop.create_future()  # not the one that keeps the exception
            if job is self._running:
                return
            queue = self._small if job.small else self._large
            if job in queue:
                queue.remove(job)
                heapq.heapify(self._large)
        job.drop()

    def close(self, timeout: float = 1.0) -> None:
        """Refuse new work, drop what waits, and give what runs ``timeout`` seconds to end."""
        with self._wake:
            self._closed = True
            dropped = [*self._small, *self._large]
            self._small.clear()
            self._large.clear()
            self._wake.notify()
        for job in dropped:
            job.settle(None, Overloaded(_CLOSING))
        self._thread.join(timeout)

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not (self._small or self._large):
                    if self._closed:
                        return
                    self._wake.wait()
                job = self._running = self._next()
            self._advance(job)
            del job  # or the last request's tensors live until the next one

    def _next(self) -> _Job:
        if self._small and (self._burst < regimes.OVERTAKING_TURNS or not self._large):
            self._burst += 1
            job = self._small.popleft()
        else:
            self._burst = 0
            job = heapq.heappop(self._large)
        job.begun = True
        return job

    def _advance(self, job: _Job) -> None:
        """Run one step of ``job``, and have it go on, wait for its bytes, or end."""
        needed, error = job.step()
        with self._wake:
            self._running = None
            if job.forgotten:
                job.drop()
            elif needed is None:
                job.settle(None, error)
            elif self._closed:
                job.settle(None, Overloaded(_CLOSING))
            elif job.has(needed):
                self._put(job)
            else:
                job.settle(needed, None)
        del error  # Its traceback leads here: a circle would keep all that the step held.

    def _put(self, job: _Job) -> None:
        if job.small and job.begun:
            self._small.appendleft(job)
        elif job.small:
            self._small.append(job)
        else:
            heapq.heappush(self._large, job)

    def _unbegun(self) -> int:
        return sum(not job.begun for job in (*self._small, *self._large))


@dataclass(eq=False)
class _Job:
    """Steps to take in the lane, and the future that a coroutine awaits meanwhile.

    That gives ``None`` at the end, or how many bytes of logits the next step waits for.
    """

    number: int
    small: bool
    steps: Steps | None
    source: Source | None = None
    start: int = 0
    window: int | None = None
    begun: bool = False
    forgotten: bool = False
    result: Any = None
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    turn: asyncio.Future[int | None] = field(init=False)

    def __lt__(self, other: _Job) -> bool:
        return self.number < other.number

    def has(self, needed: int) -> bool:
        """Tell whether the first ``needed`` bytes of the logits are there."""
        source = self.source
        return source is None or source.filled >= self.start + needed

    async def arrival(self, needed: int) -> None:
        """Return once the first ``needed`` bytes of the logits are there."""
        arrived = asyncio.Event()
        assert self.source is not None
        self.source.progress = lambda filled: arrived.set() if self.has(needed) else None
        if not self.has(needed):
            await arrived.wait()

    def step(self) -> tuple[int | None, BaseException | None]:
        """Take one step: how many bytes the next one needs, or what was raised."""
        assert self.steps is not None
        try:
            needed = next(self.steps)
            self._discard(needed)
            return needed, None
        except StopIteration as stopped:
            self.result = stopped.value
            return None, None
        except BaseException as error:
            return None, error

    def _discard(self, needed: int) -> None:
        """Have the source told what is done with, before a step that reads up to ``needed``."""
        source = self.source
        if source is not None and self.window is not None:
            with suppress(RuntimeError):  # a loop that was closed meanwhile
                done = self.start + needed - self.window
                self.loop.call_soon_threadsafe(source.discard, done)

    def drop(self) -> None:
        """Let go of everything, wherever the steps have got to."""
        steps, self.steps = self.steps, None
        self.result = None
        if steps is not None:
            steps.close()

    def settle(self, needed: int | None, error: BaseException | None) -> None:
        # A loop that was closed meanwhile has nobody left to tell.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._deliver, self.turn, needed, error)

    @staticmethod
    def _deliver(
        turn: asyncio.Future[int | None], needed: int | None, error: BaseException | None
    ) -> None:
        if turn.done():
            return
        if error is None:
            turn.set_result(needed)
        else:
            turn.set_exception(error)


def _once(function: Callable[[], T]) -> Generator[int, None, T]:
    yield from ()
    return function()
