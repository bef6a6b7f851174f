"""Grants: which growth or new lease is next, which is refused, and which body has to go.

Ranks (``claims``) have shares: what is larger than tiny leaves room for tiny leases, what is large
for small ones too, so that however slow large bodies are to come, small requests are answered.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from operator import attrgetter

from service.errors import Overloaded, TooLarge
from service.memory.claims import LARGE, RANKS, Claimed, Claims, rank_of
from service.memory.upload import Upload
from service.regimes import TINY_LEASE_BYTES

FULL = "other requests hold all the memory there is"

# Of the budget, the part that is for smaller leases than those of a rank: none, 1/32 for tiny
# leases, 1/8 for tiny and small ones.
_FOR_SMALLER = (0, 32, 8)
# Of the seconds that others wait, how often to look at the bodies that are coming: 0.5 s of 10.
_LOOK = 0.05


@dataclass(eq=False, slots=True)
class _Waiter:
    """Waiter: a lease that waits for ``size`` bytes more."""

    lease: Claimed
    size: int
    rank: int
    given_back: int  # how often memory was, before
    granted: asyncio.Future[None]
    timer: asyncio.TimerHandle | None = None
    counted: bool = False


class Grants:
    """Leases of ``total`` bytes, granted in the order of their ranks and ages.

    A new one waits for ``wait_seconds`` at most. One that has begun waits on while others give
    back memory; and where all wait for each other, which claims mostly rule out, what fits goes on
    and otherwise the youngest is refused at once. What grows comes before what is new.
    """

    def __init__(self, total: int, wait_seconds: float) -> None:
        self.total = total
        self.wait_seconds = wait_seconds
        self.openings_waiting = 0
        self._shares = [total // part if part else 0 for part in _FOR_SMALLER]
        # What is for leases of each rank alone.
        larger = [*self._shares[1:], total]
        self._own = [most - less for most, less in zip(larger, self._shares, strict=True)]
        self.leased = 0  # bytes that requests hold
        self._held = [0, 0, 0]  # the same by rank
        self._holders = [0, 0, 0]  # leases that hold anything, by rank
        self._claims = Claims(self.most(1), self.most(LARGE))
        self._growing: dict[_Waiter, None] = {}  # the oldest lease first
        self._new: list[dict[_Waiter, None]] = [{} for _ in RANKS]
        self._given_back = [0, 0, 0]  # how often memory was, by rank
        # Bodies that are coming: those that are slow have to go where others wait.
        self.uploads: set[Upload] = set()
        self._look: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        tiny, small, large = self._new
        return len(self._growing) + len(tiny) + len(small) + len(large)

    def _anyone_waits(self) -> bool:
        return bool(self._growing) or any(self._new)

    def most(self, rank: int = LARGE) -> int:
        """Bytes that leases of ``rank`` and above may hold."""
        return self.total - self._shares[rank]

    async def grant(self, lease: Claimed, size: int) -> None:
        """Count ``size`` bytes more for ``lease`` once they fit.

        Raises ``TooLarge`` and ``Overloaded``.
        """
        if self.granted(lease, size):
            return
        whole = lease.size + size
        self.expect(lease, whole)
        rank = rank_of(lease.claim)
        if whole > self.most(rank):
            raise TooLarge(
                f"the request takes {whole:,} bytes of memory, and the server has"
                f" {self.most(rank):,}",
                where="body",
            )
        # A new lease stands behind others of its rank, though it may fit.
        behind = not lease.size and (
            self._new[rank] or any(waiter.rank == rank for waiter in self._growing)
        )
        if not behind and self._fits(lease, size):
            self.count(lease, size)
        else:
            granted = asyncio.get_running_loop().create_future()
            await self._wait(_Waiter(lease, size, rank, sum(self._given_back[rank:]), granted))

    def granted(self, lease: Claimed, size: int) -> bool:
        """Count ``size`` bytes more if they are few and nobody waits: what most requests need."""
        if not size:
            return True
        few = lease.size + size <= TINY_LEASE_BYTES and lease.claim <= TINY_LEASE_BYTES
        if not few or self.leased + size > self.total or self._anyone_waits():
            return False
        self.count(lease, size)
        return True

    def expect(self, lease: Claimed, claim: int) -> None:
        """Have ``lease`` claim ``claim`` bytes, if it does not claim more."""
        if claim > lease.claim:
            size = lease.size
            self._set(lease, 0)
            lease.claim = claim
            self._set(lease, size)

    def count(self, lease: Claimed, change: int) -> None:
        """Have ``lease`` hold ``change`` bytes more, which fit, or fewer."""
        if lease.size + change > lease.claim:
            lease.claim = lease.size + change
        self._set(lease, lease.size + change)
        if change < 0:
            self._given_back[rank_of(lease.claim)] += 1
            if self._anyone_waits():
                self._admit()

    def _set(self, lease: Claimed, size: int) -> None:
        rank, before = rank_of(lease.claim), lease.size
        lease.size = size
        self.leased += size - before
        self._held[rank] += size - before
        self._holders[rank] += (size > 0) - (before > 0)
        if rank:
            self._claims.set(lease.number, size, lease.claim)

    def _fits(self, lease: Claimed, size: int, *, safely: bool = True) -> bool:
        """Tell whether ``lease`` can hold ``size`` bytes more, and ``safely`` so: all can end."""
        if self.leased + size > self.total:
            return False
        rank = rank_of(lease.claim)
        for least in RANKS[1 : rank + 1]:
            if sum(self._held[least:]) + size > self.most(least):
                return False
        # Smaller ones overtake larger ones, but new ones cannot keep them out for ever.
        overtakes = not lease.size and self._held[rank] + size > self._own[rank]
        if overtakes and (
            any(self._new[rank + 1 :]) or any(one.rank > rank for one in self._growing)
        ):
            return False
        whole = lease.size + size
        return not rank or not safely or self._claims.safe(lease.number, whole, lease.claim)

    async def _wait(self, waiter: _Waiter) -> None:
        if waiter.lease.size:
            self._growing[waiter] = None
            oldest = sorted(self._growing, key=lambda one: one.lease.number)
            self._growing = dict.fromkeys(oldest)
        else:
            self._new[waiter.rank][waiter] = None
        self._arm(waiter)
        self.look_soon()
        self._unlock()
        try:
            await waiter.granted
        except BaseException:
            self._forget(waiter)
            if waiter.counted:
                self.count(waiter.lease, -waiter.size)
            else:
                self._admit()
            raise
        finally:
            assert waiter.timer is not None
            waiter.timer.cancel()

    def _arm(self, waiter: _Waiter) -> None:
        loop = asyncio.get_running_loop()
        waiter.timer = loop.call_later(self.wait_seconds, self._expire, waiter)

    def _expire(self, waiter: _Waiter) -> None:
        before, waiter.given_back = waiter.given_back, sum(self._given_back[waiter.rank :])
        if waiter in self._growing and waiter.given_back != before:
            self._arm(waiter)
        else:
            self._refuse(waiter)

    def _refuse(self, waiter: _Waiter) -> None:
        self._forget(waiter)
        if not waiter.granted.done():
            waiter.granted.set_exception(Overloaded(FULL))

    def _forget(self, waiter: _Waiter) -> None:
        self._growing.pop(waiter, None)
        self._new[waiter.rank].pop(waiter, None)

    def _admit(self) -> None:
        """Grant what waits, as far as it fits."""
        for waiter in [*self._growing]:
            if self._fits(waiter.lease, waiter.size):
                self._grant(waiter)
        for rank in RANKS:
            if any(waiter.rank == rank for waiter in self._growing):
                continue
            while self._new[rank]:
                waiter = next(iter(self._new[rank]))
                if not self._fits(waiter.lease, waiter.size):
                    break
                self._grant(waiter)
        self._unlock()

    def _grant(self, waiter: _Waiter) -> None:
        self._forget(waiter)
        # One that is done already gave up, and has not got as far as its cleaning up.
        if not waiter.granted.done():
            self.count(waiter.lease, waiter.size)
            waiter.counted = True
            waiter.granted.set_result(None)

    def _unlock(self) -> None:
        """Grant one, or refuse the youngest, where all that hold memory wait for more."""
        while (locked := self._locked()) is not None:
            for waiter in self._growing:
                if self._fits(waiter.lease, waiter.size, safely=False):
                    self._grant(waiter)
                    break
            else:
                holders = [one for one in self._growing if one.rank >= locked]
                self._refuse(holders[-1])

    def _beyond(self, rank: int) -> bool:
        """Tell whether leases of ``rank`` have more than their share, in the way of larger ones."""
        return self._held[rank] > self._own[rank]

    def _locked(self) -> int | None:
        """Find the highest rank from which on all that hold memory wait for each other."""
        for rank in reversed(RANKS):
            waiting = sum(waiter.rank >= rank for waiter in self._growing)
            # Else they wait for smaller ones, which will end.
            among_themselves = not any(map(self._beyond, RANKS[:rank]))
            if waiting and waiting == sum(self._holders[rank:]) and among_themselves:
                return rank
        return None

    def look_soon(self) -> None:
        """Look, while anybody waits, for bodies that have to go."""
        if self._look is None:
            seconds = self.wait_seconds * _LOOK
            self._look = asyncio.get_running_loop().call_later(seconds, self._evict)

    def _evict(self) -> None:
        self._look = None
        waiters = [*self._growing, *(waiter for queue in self._new for waiter in queue)]
        if not waiters and not self.openings_waiting:
            return
        self.look_soon()
        late = [upload for upload in self.uploads if upload.late(self.wait_seconds)]
        beginnings = [upload for upload in late if upload.opening]
        for upload in beginnings[: self.openings_waiting]:
            upload.evict()
        if not waiters:
            return
        wanted = sum(waiter.size for waiter in waiters)
        least = min(waiter.rank for waiter in waiters)
        freed = sum(upload.size for upload in self.uploads if upload.evicted)
        bodies = [upload for upload in late if not upload.opening]
        for upload in sorted(bodies, key=attrgetter("size"), reverse=True):
            rank = rank_of(upload.claim)
            if freed < wanted and (rank >= least or self._beyond(rank)):
                freed += upload.size
                upload.evict()
