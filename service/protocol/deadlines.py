"""Time: one timer looks at all connections; none is armed for a request, or for a read."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Protocol


class Watched(Protocol):
    """What has deadlines."""

    def look(self, now: float) -> None:
        """End whatever has taken too long; ``now`` is the event loop's time in seconds."""


class Watch:
    """Looks at everything that it is given, every ``seconds``, while there is anything.

    A thousand connections take it about a millisecond.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop = loop
        self._seconds = seconds
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Watched) -> None:
        """Look at ``one`` from now on."""
        self._watched.add(one)
        if self._timer is None:
            self._timer = self.loop.call_later(self._seconds, self._look)

    def discard(self, one: Watched) -> None:
        """Forget ``one``."""
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
    """Patience with whoever should send or read at ``bytes_per_second``, or faster.

    ``grace`` seconds of it, which pass with time and come back with bytes: so that it is used up
    after that long without any, and lasts for ever at the right pace.
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
        """Let no patience pass until the next look: it is not their turn."""
        self._at = None

    def behind(self, what: Hashable, moved: int, now: float) -> bool:
        """Whether patience is used up, ``moved`` bytes having come so far.

        It is new for each ``what``.
        """
        if what != self._what:
            self._what, self._left = what, self._grace
        elif self._at is not None:
            gained = (moved - self._moved) / self._rate
            self._left = min(self._grace, self._left - (now - self._at) + gained)
        self._at, self._moved = now, moved
        return self._left < 0
