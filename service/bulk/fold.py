"""Results of pieces merged in the order of the pieces, and kept in a journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from kernels.report import Report
from service.bulk import partial
from service.bulk.journal import Prefix
from service.bulk.plan import Plan
from service.bulk.total import TOGETHER, Total
from service.bulk.work import Result

# Pieces, at least, of finished shards that a journal keeps as a total: each has a kilobyte.
_COMPACTED = 4096
# Seconds between two times that a report is journalled, and the share of the time that takes, at
# most: it has some MB where there are many classes.
_EVERY, _SHARE = 5.0, 0.05


class Kept(Protocol):
    """Results that are kept: a ``Journal``, or several of parts."""

    def prefix(self) -> Prefix | None: ...

    def finished(self) -> list[int]: ...

    def partials(self, numbers: range) -> dict[int, bytes]: ...

    def save(self, partials: Sequence[tuple[int, bytes]], prefix: Prefix | None = None) -> None: ...


class Fold:
    """Total and report of the pieces before number ``next``, and the pieces that came early.

    A piece without a result counts as if all in it were ignored. With a ``journal``, it holds what
    was added at each ``save``.
    """

    def __init__(
        self, plan: Plan, journal: Kept | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.next = self.finished = 0
        self.total = Total(plan.job.worst)
        self.report: Report | None = None
        self._plan, self._journal, self._clock = plan, journal, clock
        self._rows_before = 0  # rows without a report before any came, whose form these need
        # Results that came early, and those whose bytes are in the journal alone.
        self._early: dict[int, Result] = {}
        self._kept: set[int] = set()
        self._failed: set[int] = set()
        self._unsaved: list[tuple[int, bytes]] = []
        self._prefix: Prefix | None = None  # to be saved
        # Pieces in the journal's prefix; whether no piece before ``next`` is without a result.
        self._compacted, self._whole = 0, True
        self._saved_at, self._cost = clock(), 0.0
        if journal is not None:
            self._resume(journal)

    def _resume(self, journal: Kept) -> None:
        prefix = journal.prefix()
        if prefix is not None:
            self.next = self._compacted = prefix.pieces
            self.total = Total.from_bytes(prefix.total, self._plan.job.worst)
            self.report = None if prefix.report is None else Report.from_bytes(prefix.report)
        self._kept = set(journal.finished())
        self.finished = self.next + len(self._kept)
        self.advance()

    def has(self, number: int) -> bool:
        """True where the piece ``number`` has a result."""
        return number < self.next or number in self._kept or number in self._early

    def put(self, number: int, result: Result) -> None:
        """Add the result of a piece, once."""
        self._early[number] = result
        self.finished += 1
        if self._journal is not None and not self._plan.job.report:
            self._unsaved.append((number, result.partial))

    def fail(self, number: int) -> None:
        """Note that the piece ``number`` has no result, and will have none."""
        self._failed.add(number)

    def advance(self) -> None:
        """Merge all pieces that follow on each other."""
        while (stop := self._ready()) > self.next:
            numbers = range(self.next, stop)
            if self._plan.job.report:
                for number in numbers:
                    self._add_report(number)
            else:
                self.total.add(self._partials(numbers))
            self.next = stop
            self._compact()

    def _ready(self) -> int:
        """End of the pieces to be merged now; where it can be, that of a shard."""
        stop, most = self.next, min(self.next + TOGETHER, self._plan.pieces)
        while stop < most and (stop in self._early or stop in self._kept or stop in self._failed):
            stop += 1
        if self.next < stop < self._plan.pieces:
            boundary = self._plan.sources[self._plan.source_of(stop)].piece
            return boundary if boundary > self.next else stop
        return stop

    def _partials(self, numbers: range) -> list[bytes]:
        """Partials of ``numbers``, all of which are there, or failed."""
        held: dict[int, bytes] = {}
        if self._journal is not None and not self._kept.isdisjoint(numbers):
            held = self._journal.partials(numbers)
            self._kept.difference_update(numbers)
        return [self._partial(number, held) for number in numbers]

    def _partial(self, number: int, held: dict[int, bytes]) -> bytes:
        if (result := self._early.pop(number, None)) is not None:
            return result.partial
        if number in held:
            return held[number]
        self._whole = False
        piece = self._plan.piece(number)
        return partial.blank(piece.position, piece.position + piece.positions)

    def _add_report(self, number: int) -> None:
        result = self._early.pop(number, None)
        if result is None:
            if self._whole and self._journal is not None:
                self._prefix = self._checkpoint(number)
            self._whole = False
            piece = self._plan.piece(number)
            rows = piece.stop - piece.first
            if self.report is None:
                self._rows_before += rows
            else:
                self.report.merge(Report(self.report.form, rows))
            return
        report = Report.from_bytes(result.report)
        if self.report is None:
            self.report = Report(report.form, self._rows_before)
        self.report.merge(report)

    def _checkpoint(self, number: int) -> Prefix:
        report = None if self.report is None else self.report.to_bytes()
        return Prefix(number, self.total.to_bytes(), report)

    def _compact(self) -> None:
        """Note the total to be journalled in place of the pieces of finished shards."""
        if self._journal is None or self._plan.job.report or not self._whole:
            return
        plan = self._plan
        ends = (
            self.next == plan.pieces or plan.sources[plan.source_of(self.next)].piece == self.next
        )
        if ends and self.next - self._compacted >= _COMPACTED:
            self._prefix = self._checkpoint(self.next)
            self._compacted = self.next

    def save(self, last: bool = False) -> None:
        """Write to the journal what is new; of a report, now and then and the ``last`` time."""
        if self._journal is None:
            return
        now = self._clock()
        waited = now - self._saved_at >= max(_EVERY, self._cost / _SHARE)
        if self._plan.job.report and self._whole and self.next and (last or waited):
            self._prefix = self._checkpoint(self.next)
        if self._unsaved or self._prefix is not None:
            self._journal.save(self._unsaved, self._prefix)
            self._saved_at = self._clock()
            self._cost = self._saved_at - now
            self._unsaved, self._prefix = [], None
