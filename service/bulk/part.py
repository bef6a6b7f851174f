"""Part of a plan: what one of several machines scores, into a journal of its own."""

from __future__ import annotations

import re

from kernels import InvalidInput
from service.bulk.journal import Journal
from service.bulk.plan import Plan
from service.bulk.total import Total
from service.bulk.work import Result
from service.errors import InvalidOption

_PART = re.compile(r"(\d{1,9})/(\d{1,9})")


def parts_of(part: str) -> tuple[int, int]:
    """Number of the part ``I/N``, I from 0 to N - 1, and that of all. Raises ``InvalidOption``."""
    found = _PART.fullmatch(part)
    index, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not index < parts:
        raise InvalidOption(
            f"part is {part!r:.50}: give I/N, the number of this part, from 0, and that of all,"
            " such as 0/4 to 3/4",
            field="part",
        )
    return index, parts


def span_of(part: str, plan: Plan) -> range:
    """Pieces of a part of ``plan``: neighbours, so of few shards. Raises ``InvalidOption``."""
    index, parts = parts_of(part)
    return range(plan.pieces * index // parts, plan.pieces * (index + 1) // parts)


class PartFold:
    """Results of the pieces in ``span``, which are kept in ``journal`` one by one.

    In place of a ``Fold``, for a run of a part: what is before it is not known here.
    """

    report = None

    def __init__(self, plan: Plan, journal: Journal, span: range) -> None:
        if journal.prefix() is not None:
            raise InvalidInput(
                f"{journal.path} is the journal of a run of all parts: give another file",
                field="journal",
            )
        self.total = Total(plan.job.worst)
        self.next, self._span, self._journal = span.start, span, journal
        self._done = {number for number in journal.finished() if number in span}
        self._failed: set[int] = set()
        self._unsaved: list[tuple[int, bytes]] = []

    @property
    def finished(self) -> int:
        return len(self._done)

    def has(self, number: int) -> bool:
        """True where the piece ``number`` has a result."""
        return number in self._done

    def put(self, number: int, result: Result) -> None:
        """Add the result of a piece, once."""
        self._done.add(number)
        self._unsaved.append((number, result.partial))

    def fail(self, number: int) -> None:
        """Note that the piece ``number`` has no result, and will have none."""
        self._failed.add(number)

    def advance(self) -> None:
        """Pass over the pieces that are done."""
        while self.next < self._span.stop and (
            self.next in self._done or self.next in self._failed
        ):
            self.next += 1

    def save(self, last: bool = False) -> None:
        """Write to the journal what is new."""
        if self._unsaved:
            self._journal.save(self._unsaved)
            self._unsaved = []
