"""An event loop whose time passes only while everybody waits: an hour takes no time."""

from __future__ import annotations

import asyncio
import selectors


class _Selector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits, and nothing will ever happen"
        self.now += timeout
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """Nothing but tasks and timers: neither threads nor sockets are waited for."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now
