"""Sizes of leases by rank, and whether all that hold memory can end: the banker's algorithm.

A lease claims what its request is expected to take in all. Growth is granted only while there is an
order in which each lease can grow to its claim and end, those before it having given back what
they held: so none waits for another that waits for it (Dijkstra, EWD 623).
"""

from __future__ import annotations

# Bytes: a lease of no more is tiny, or small. Requests of a few rows are tiny.
TINY = 2**16
SMALL = 2**20
RANKS = (0, 1, 2)
LARGE = RANKS[-1]


def rank_of(size: int) -> int:
    """The rank of a lease of ``size`` bytes: 0 is tiny, 1 small, 2 large."""
    return (size > TINY) + (size > SMALL)


class Claims:
    """What each large lease holds and claims, by number, of ``total`` bytes: never less."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._sum = 0
        self._held = 0
        self._of: dict[int, tuple[int, int]] = {}

    def set(self, number: int, held: int, claim: int) -> None:
        """Have lease ``number`` hold ``held`` bytes and claim ``claim``, or nothing if it holds 0."""
        before, claimed = self._of.pop(number, (0, 0))
        self._held -= before
        self._sum -= claimed
        if held:
            claim = min(claim, self.total)
            self._of[number] = held, claim
            self._held += held
            self._sum += claim

    def safe(self, number: int, held: int, claim: int) -> bool:
        """Whether all could still end once lease ``number`` held ``held`` bytes."""
        before, claimed = self._of.get(number, (0, 0))
        claim = min(claim, self.total)
        if self._sum - claimed + claim <= self.total:
            return True
        others = {**self._of, number: (held, claim)}
        free = self.total - (self._held - before + held)
        for missing, own in sorted((claim - held, held) for held, claim in others.values()):
            if missing > free:
                return False
            free += own
        return True
