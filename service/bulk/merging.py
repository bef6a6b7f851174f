"""Journals of parts, merged to the outcome of one run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

import numpy as np

from kernels import InvalidInput
from service.bulk.fold import Fold
from service.bulk.journal import Journal, Prefix
from service.bulk.plan import Failure, Plan
from service.bulk.run import Outcome

_Numbers: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]


class Journals:
    """Journals of parts of ``plan`` as one, to be read; it has each piece once.

    One is open at a time. ``before`` are pieces that were merged before. Raises ``InvalidInput`` as
    ``Journal`` does, and for a file that is not there.
    """

    def __init__(self, paths: Sequence[Path], plan: Plan, before: Prefix | None = None) -> None:
        self._paths, self._plan = paths, plan
        self._prefix = before
        self._numbers: list[_Numbers] = []
        self._open: tuple[int, Journal] | None = None
        for path in paths:
            if not path.is_file():
                raise InvalidInput(f"{path}: there is no such journal", field="merge")
            journal = Journal(path, plan)
            prefix = journal.prefix()
            if prefix is not None and (self._prefix is None or prefix.pieces > self._prefix.pieces):
                self._prefix = prefix
            self._numbers.append(np.array(journal.finished(), np.int64))
            journal.close()
        self._firsts = np.array([_at(numbers, 0) for numbers in self._numbers], np.int64)
        self._lasts = np.array([_at(numbers, -1) for numbers in self._numbers], np.int64)

    def prefix(self) -> Prefix | None:
        """Pieces from the first one on that are kept as a total."""
        return self._prefix

    def finished(self) -> list[int]:
        """Numbers of the finished pieces that are not in the prefix, ascending."""
        first = 0 if self._prefix is None else self._prefix.pieces
        numbers = np.unique(np.concatenate([np.empty(0, np.int64), *self._numbers]))
        found: list[int] = numbers[numbers >= first].tolist()
        return found

    def partials(self, numbers: range) -> dict[int, bytes]:
        """Partials, by number, of the finished ``numbers`` that are not in the prefix."""
        found: dict[int, bytes] = {}
        some = (self._firsts < numbers.stop) & (self._lasts >= numbers.start)
        for index in np.flatnonzero(some).tolist():
            if self._open is None or self._open[0] != index:
                self.close()
                self._open = index, Journal(self._paths[index], self._plan)
            found |= self._open[1].partials(numbers)
        return found

    def save(self, partials: Sequence[tuple[int, bytes]], prefix: Prefix | None = None) -> None:
        """Save nothing: journals of parts stay as they are."""

    def close(self) -> None:
        """Close the journal that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def _at(numbers: _Numbers, index: int) -> int:
    return int(numbers[index]) if len(numbers) else -1


def merged(paths: Sequence[Path], plan: Plan, kept: Journal | None = None) -> Outcome:
    """Outcome of the parts whose journals are ``paths``: that of one run, to the bit.

    Pieces that no journal has are failures. With ``kept``, a journal for this alone, those from the
    first one on are kept there as a total, and the next merge goes on behind them; journals that
    runs have open are left for that one. Raises ``InvalidInput`` for a journal of another plan.
    """
    before = None
    if kept is not None:
        if kept.finished():
            raise InvalidInput(
                f"{kept.path} is the journal of a run: give another", field="journal"
            )
        before = kept.prefix()
        paths = [path for path in paths if path != kept.path and _at_rest(path)]
    journals = Journals(paths, plan, before)
    try:
        fold = Fold(plan, journals)
        if kept is not None and fold.next:
            kept.save([], Prefix(fold.next, fold.total.to_bytes(), None))
        missing = [number for number in range(fold.next, plan.pieces) if not fold.has(number)]
        for number in missing:
            fold.fail(number)
        fold.advance()
    finally:
        journals.close()
    failures = [*plan.failures, *_without_result(plan, missing)]
    return Outcome(fold.total, None, failures, fold.finished, False)


def _at_rest(path: Path) -> bool:
    """True for a journal that no run has open, nor was killed with: SQLite's log is beside those.

    Locks are not relied on: the file systems that machines share may have none.
    """
    return path.stat().st_size > 0 and not path.with_name(f"{path.name}-wal").exists()


def _without_result(plan: Plan, missing: Sequence[int]) -> list[Failure]:
    """Rows of the pieces ``missing``, neighbours of a shard together."""
    pieces = [plan.piece(number) for number in missing]
    found = []
    for _, group in groupby(
        enumerate(pieces), lambda item: (item[1].source, item[1].number - item[0])
    ):
        run = [piece for _, piece in group]
        location = plan.sources[run[0].source].location
        found.append(Failure(location, run[0].first, run[-1].stop, "no journal has its result"))
    return found
