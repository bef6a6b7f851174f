"""A state is safe where, in some order, all can have what they claim: tried in every order."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from service.memory.claims import Claims, rank_of
from service.regimes import SMALL_LEASE_BYTES as SMALL
from service.regimes import TINY_LEASE_BYTES as TINY


def can_all_end(total: int, large: int, leases: dict[int, tuple[int, int]]) -> bool:
    for order in permutations(leases):
        free = total - sum(held for held, _ in leases.values())
        free_large = large - sum(held for held, claim in leases.values() if claim > SMALL)
        for number in order:
            held, claim = leases[number]
            missing = min(claim, large if claim > SMALL else total) - held
            if missing > free or (claim > SMALL and missing > free_large):
                break
            free += held
            free_large += held if claim > SMALL else 0
        else:
            return True
    return False


@pytest.mark.parametrize("seed", range(60))
def test_safe_is_what_every_order_says(seed: int) -> None:
    chance = random.Random(seed)
    total, large = 8 * SMALL, 7 * SMALL
    claims, leases = Claims(total, large), dict[int, tuple[int, int]]()
    for _ in range(40):
        number = chance.randrange(5)
        others = {other: lease for other, lease in leases.items() if other != number}
        free = total - sum(held for held, _ in others.values())
        free_large = large - sum(held for held, claim in others.values() if claim > SMALL)
        held = int(chance.random() * min(chance.choice([free, SMALL]), free_large, free))
        claim = held + int(chance.random() ** 2 * chance.choice([SMALL - min(held, SMALL), total]))
        if held:
            after = {**others, number: (held, claim)}
            assert claims.safe(number, held, claim) == can_all_end(total, large, after)
        if not held or chance.random() < 0.7:
            claims.set(number, held, claim)
            leases.pop(number, None)
            if held:
                leases[number] = held, claim


def test_ranks() -> None:
    sizes = (0, 1, TINY, TINY + 1, SMALL, SMALL + 1)
    assert [rank_of(size) for size in sizes] == [0, 0, 0, 1, 1, 2]
