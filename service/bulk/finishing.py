"""Files of results by element: each is made when all pieces of its shard are there."""

from __future__ import annotations

from collections.abc import Iterable

from service.bulk import output
from service.bulk.plan import Failure, Plan
from service.bulk.terms import failure_of


class Finishing:
    """Shards of ``plan`` whose files are to be made; ``finished`` are pieces that are there.

    Nothing is done where the plan has no places for files; a shard without rows has no file.
    """

    def __init__(self, plan: Plan, finished: Iterable[int]) -> None:
        self._plan = plan
        self._left: dict[int, int] = {}
        self._ready: list[int] = []
        if plan.places:
            self._left = {index: source.pieces for index, source in enumerate(plan.sources)}
            for number in finished:
                self.add(number)

    def add(self, number: int) -> None:
        """Note that the results of the piece ``number`` are there."""
        if not self._left:
            return
        index = self._plan.source_of(number)
        self._left[index] -= 1
        if not self._left[index]:
            self._ready.append(index)

    def make(self) -> list[Failure]:
        """Make the files of the shards that are complete; returns those that cannot be made.

        A shard's pieces are removed with that, so they have to be in the journal before.
        """
        failures = []
        for index in self._ready:
            source = self._plan.sources[index]
            place = self._plan.places[source.location]
            try:
                output.finish(place, [source.span_of(piece) for piece in range(source.pieces)])
            except Exception as error:  # of the disk, and of the format's library
                reason = f"results by element: {failure_of(error, str(place))}"
                failures.append(Failure(source.location, None, None, reason))
        self._ready = []
        return failures
