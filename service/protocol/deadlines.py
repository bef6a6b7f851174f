"""Deadlines of all connections by one timer: none is armed for a request, or for a read."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Protocol


class Watched(Protocol):
    def look(self, now: float) -> None:
        """End what has taken too long; ``now`` is the event loop's time in seconds."""


class Watch:
    """Timer that calls ``look`` of each watched object every ``seconds``, while there is any.

    A thousand connections take about 1 ms.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop = loop
        self._seconds = seconds
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Watched) -> None:
        self._watched.add(one)
        if self._timer is None:
            self._timer = self.loop.call_later(self._seconds, self._look)

    def discard(self, one: Watched) -> None:
        self._watched.discard(one)
        if not self._watched and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self.loop.call_later(self._seconds, self._look)
        now = self.loop.time()
        for one in tuple(self._watched):
            one.look(now)


class Pace:
    """Check of a client that should send, or read, at least ``bytes_per_second``.

    It starts with a credit of ``grace`` seconds, which is also the most. Time uses the credit up,
    and bytes earn it back at the asked rate: without a byte it lasts ``grace`` seconds.
    """

    __slots__ = ("_at", "_grace", "_left", "_moved", "_rate", "_what")

    def __init__(self, bytes_per_second: float, grace: float) -> None:
        self._rate = bytes_per_second
        self._grace = grace
        self._left = grace
        self._at: float | None = None
        self._moved = 0
        self._what: Hashable = None

    def rest(self) -> None:
        """Charge no time until the next look: the client is not waited for."""
        self._at = None

    def behind(self, what: Hashable, moved: int, now: float) -> bool:
        """Tell whether the credit is used up; ``moved`` is the bytes so far.

        Each ``what`` (a request, an answer) starts with the full credit.
        """
        if what != self._what:
            self._what, self._left = what, self._grace
        elif self._at is not None:
            gained = (moved - self._moved) / self._rate
            self._left = min(self._grace, self._left - (now - self._at) + gained)
        self._at, self._moved = now, moved
        return self._left < 0
