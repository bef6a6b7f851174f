"""Sizes of leases by rank, and whether all that hold memory can end: the banker's algorithm.

A lease claims what its request is expected to take in all. Growth is granted only while there is an
order in which each lease can grow to its claim and end, those before it having given back what
they held: so none waits for another that waits for it (Dijkstra, EWD 623).
"""

from __future__ import annotations

from typing import Protocol

from service.regimes import SMALL_LEASE_BYTES, TINY_LEASE_BYTES

RANKS = (0, 1, 2)
LARGE = RANKS[-1]


class Claimed(Protocol):
    """Lease, as it is counted: bytes that it holds and claims; later ones have higher numbers."""

    size: int
    claim: int
    number: int


def rank_of(size: int) -> int:
    """Rank a lease that claims ``size`` bytes: 0 is tiny, 1 small, 2 large."""
    return 0 if size <= TINY_LEASE_BYTES else 1 if size <= SMALL_LEASE_BYTES else 2


class Claims:
    """Bytes that each lease holds and claims, which is never less, by number.

    They have ``total`` bytes, and large ones no more than ``large`` of these.
    """

    def __init__(self, total: int, large: int) -> None:
        self._limits = total, large
        self._sums = [0, 0]  # claims, of all and of large ones
        self._of: dict[int, tuple[int, int]] = {}

    def set(self, number: int, held: int, claim: int) -> None:
        """Have lease ``number`` hold ``held`` bytes and claim ``claim``; without any, nothing."""
        _, before = self._of.pop(number, (0, 0))
        claim = min(claim, self._limits[rank_of(claim) == LARGE]) if held else 0
        if held:
            self._of[number] = held, claim
        for size, sign in ((before, -1), (claim, 1)):
            self._sums[0] += sign * size
            self._sums[1] += sign * size if rank_of(size) == LARGE else 0

    def safe(self, number: int, held: int, claim: int) -> bool:
        """Tell whether all could still end once lease ``number`` held ``held`` bytes."""
        total, large = self._limits
        _, before = self._of.get(number, (0, 0))
        if self._sums[0] - before + claim <= total and self._sums[1] + claim <= large:
            return True
        claim = min(claim, self._limits[rank_of(claim) == LARGE])
        leases = {**self._of, number: (held, claim)}.values()
        free = total - sum(held for held, _ in leases)
        free_large = large - sum(held for held, claim in leases if claim > SMALL_LEASE_BYTES)
        # The lease that misses the least ends first: if it cannot then, it never can.
        for missing, claim in sorted((claim - held, claim) for held, claim in leases):
            if missing > free or (claim > SMALL_LEASE_BYTES and missing > free_large):
                return False
            free += claim - missing
            free_large += claim - missing if claim > SMALL_LEASE_BYTES else 0
        return True
