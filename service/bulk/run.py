"""Run of a plan: pieces in flight on an executor, retries, failures, progress."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import NamedTuple

from kernels.report import Report
from service.bulk.finishing import Finishing
from service.bulk.fold import Fold
from service.bulk.journal import Journal
from service.bulk.part import PartFold
from service.bulk.plan import Failure, Plan
from service.bulk.total import Total
from service.bulk.work import Result, score_piece

# Times that a piece is tried again.
RETRIES = 2
# Seconds between two times that progress is told.
TICK = 0.25
# Pieces in flight, times this, are how far ahead of the first unfinished one a piece may be: what
# comes early is kept, a kilobyte each, or a report.
_AHEAD, _AHEAD_OF_REPORTS = 64, 2


class Progress(NamedTuple):
    """Progress of a run: pieces, and how many of them, with bytes of logits, it computed itself.

    ``loss`` is the mean over the first pieces, up to the first that is not finished; NaN before.
    """

    finished: int
    failed: int
    pieces: int
    computed: int
    bytes: int
    loss: float


class Outcome(NamedTuple):
    """Merged results, and what has none; ``stopped`` before it was done."""

    total: Total
    report: Report | None
    failures: list[Failure]
    finished: int
    stopped: bool


class Run:
    """A run of ``plan`` on ``executor``, with up to ``in_flight`` pieces in flight.

    With a ``journal`` it goes on where that ends; with a ``part`` as well, only the pieces of that
    are scored, and kept in the journal for a merge. ``told`` is called with a ``Progress`` several
    times a second.
    """

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        *,
        in_flight: int = 1,
        journal: Journal | None = None,
        part: range | None = None,
        retries: int = RETRIES,
        told: Callable[[Progress], object] = lambda progress: None,
    ) -> None:
        self._plan, self._executor, self._retries, self._told = plan, executor, retries, told
        self._in_flight = in_flight
        self._ahead = in_flight * (_AHEAD_OF_REPORTS if plan.job.report else _AHEAD)
        self._span = range(plan.pieces) if part is None else part
        self.fold: Fold | PartFold
        if part is None:
            self.fold = Fold(plan, journal)
        else:
            assert journal is not None
            self.fold = PartFold(plan, journal, part)
        done = (number for number in range(plan.pieces) if self.fold.has(number))
        self._finishing = Finishing(plan, done)
        self._done: SimpleQueue[tuple[int, Future[bytes]] | None] = SimpleQueue()
        self._stopped = False
        self._again: deque[int] = deque()
        self._tries: dict[int, int] = {}
        self._failures: list[Failure] = []
        self._flying = self._computed = self._bytes = 0
        self._next = self._span.start

    def run(self) -> Outcome:
        """Run until each piece has a result or has failed; whatever ends it, the journal is saved.

        Raises ``ExecutorLost`` where the executor takes no more pieces, and ``sqlite3.Error``.
        """
        told_at = 0.0
        try:
            while True:
                self._submit()
                if not self._flying or self._stopped:
                    break
                self._take()
                if time.monotonic() - told_at >= TICK:
                    told_at = time.monotonic()
                    self.fold.advance()
                    self._told(self.progress())
                self.fold.save()
                self._failures += self._finishing.make()
        finally:
            self.fold.advance()
            self.fold.save(last=True)
        self._failures += self._finishing.make()
        self._told(self.progress())
        failures = [*self._plan.failures, *self._failures]
        fold = self.fold
        return Outcome(fold.total, fold.report, failures, fold.finished, self._stopped)

    def stop(self) -> None:
        """Have ``run`` return soon, without the pieces in flight; for a handler of signals."""
        self._stopped = True
        self._done.put(None)

    def progress(self) -> Progress:
        """Progress so far."""
        fold = self.fold
        loss, weight = fold.total.sums()
        if fold.report is not None:
            fold.report.settle()
            sums = fold.report.classes.sums
            loss, weight = sums.losses.total(), sums.weight()
        mean = loss / weight if weight else float("nan")
        return Progress(
            fold.finished, len(self._failures), len(self._span), self._computed, self._bytes, mean
        )

    def _submit(self) -> None:
        while self._flying < self._in_flight:
            number = self._following()
            if number is None:
                return
            future = self._executor.submit(score_piece, self._plan.task(number))
            self._flying += 1
            future.add_done_callback(partial(self._note, number))

    def _note(self, number: int, future: Future[bytes]) -> None:
        """Note that a piece is done; called in any thread."""
        self._done.put((number, future))

    def _following(self) -> int | None:
        """Number of the next piece to submit; None while there is none."""
        if self._again:
            return self._again.popleft()
        while self._next < self._span.stop and self.fold.has(self._next):
            self._next += 1
        if self._next >= self._span.stop:
            return None
        if self._next - self.fold.next >= self._ahead:
            self.fold.advance()
            if self._next - self.fold.next >= self._ahead:
                return None
        self._next += 1
        return self._next - 1

    def _take(self) -> None:
        """Take the results that are there, and wait for one if there is none."""
        with suppress(Empty):
            item = self._done.get(timeout=TICK)
            while item is not None:
                self._flying -= 1
                self._taken(*item)
                item = self._done.get_nowait()

    def _taken(self, number: int, future: Future[bytes]) -> None:
        try:
            result = Result.from_bytes(future.result())
        except (Exception, CancelledError) as error:
            self._failed(number, str(error) or type(error).__name__)
            return
        self._tries.pop(number, None)
        self._computed += 1
        self._bytes += self._plan.bytes_of(number)
        self.fold.put(number, result)
        self._finishing.add(number)

    def _failed(self, number: int, reason: str) -> None:
        tries = self._tries[number] = self._tries.get(number, 0) + 1
        if tries <= self._retries:
            self._again.append(number)
            return
        piece = self._plan.piece(number)
        source = self._plan.sources[piece.source]
        self._failures.append(Failure(source.location, piece.first, piece.stop, reason))
        self.fold.fail(number)
