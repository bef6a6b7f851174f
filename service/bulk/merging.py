"""Journals of parts, merged to the outcome of one run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from kernels import InvalidInput
from service.bulk.fold import Fold
from service.bulk.journal import Journal, Prefix
from service.bulk.plan import Failure, Plan
from service.bulk.run import Outcome


class Journals:
    """Journals of parts of ``plan`` as one, to be read; it has each piece once.

    One is open at a time. Raises ``InvalidInput`` as ``Journal`` does, and for a file that is not
    there.
    """

    def __init__(self, paths: Sequence[Path], plan: Plan) -> None:
        self._paths, self._plan = paths, plan
        self._prefix: Prefix | None = None
        self._numbers: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
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

    def prefix(self) -> Prefix | None:
        """Pieces from the first one on that are kept as a total."""
        return self._prefix

    def finished(self) -> list[int]:
        """Numbers of the finished pieces that are not in the prefix, ascending."""
        first = 0 if self._prefix is None else self._prefix.pieces
        numbers = np.unique(np.concatenate([np.empty(0, np.int64), *self._numbers]))
        found: list[int] = numbers[numbers >= first].tolist()
        return found

    def partial(self, number: int) -> bytes:
        """Partial of a finished piece that is not in the prefix."""
        if self._open is None or not _has(self._numbers[self._open[0]], number):
            self.close()
            index = next(i for i, numbers in enumerate(self._numbers) if _has(numbers, number))
            self._open = index, Journal(self._paths[index], self._plan)
        return self._open[1].partial(number)

    def save(self, partials: Sequence[tuple[int, bytes]], prefix: Prefix | None = None) -> None:
        """Save nothing: journals of parts stay as they are."""

    def close(self) -> None:
        """Close the journal that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def _has(numbers: np.ndarray[tuple[int], np.dtype[np.int64]], number: int) -> bool:
    at = int(np.searchsorted(numbers, number))
    return at < len(numbers) and int(numbers[at]) == number


def merged(paths: Sequence[Path], plan: Plan) -> Outcome:
    """Outcome of the parts whose journals are ``paths``: that of one run, to the bit.

    Pieces that no journal has are failures. Raises ``InvalidInput`` for a journal of another plan.
    """
    journals = Journals(paths, plan)
    try:
        fold = Fold(plan, journals)
        missing = [number for number in range(fold.next, plan.pieces) if not fold.has(number)]
        for number in missing:
            fold.fail(number)
        fold.advance()
    finally:
        journals.close()
    failures = [*plan.failures, *_without_result(plan, missing)]
    return Outcome(fold.total, None, failures, fold.finished, False)


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
