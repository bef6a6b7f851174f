"""Upload: a body that a client sends, and how far behind it is of what others wait for.

A request waits some seconds for memory at most. A body that would not be there within as many holds
its memory longer than others wait, and is the first to be refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

from service.errors import Overloaded
from service.memory.claims import Claimed

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]

# Of the seconds that others wait, how much a body may be behind: a pause of the network.
_GRACE = 0.25


class Landing(Protocol):
    """Server's scope extension ``lossd.landing``: the socket is read into memory of ours."""

    async def receive_into(self, destination: memoryview, progress: Callable[[int], None]) -> None:
        """Fill ``destination`` with the body's next bytes; ``progress`` is told how many are there.

        Raises ``Disconnected`` where the client goes away, or is too slow.
        """


class Upload:
    """Body of ``length`` bytes (``None``: unknown), which the current task receives.

    It is one of ``uploads`` while it is entered. ``lease`` counts what it holds meanwhile. Only
    time that is spent waiting for the client counts.
    """

    # Not of the instance until they change: a small request takes no longer than it must.
    lease: Claimed | None = None
    opening = False
    over = False
    evicted = False
    _moved = 0
    _waited = 0.0
    _since: float | None = None
    _left: float | None = None
    _seen = (0.0, 0)

    def __init__(
        self,
        receive: Receive,
        landing: Landing | None,
        length: int | None,
        uploads: set[Upload],
    ) -> None:
        self._receive = receive
        self._landing = landing
        self._length = length
        self._uploads = uploads
        self._task = asyncio.current_task()
        self._time = asyncio.get_running_loop().time

    @property
    def landing(self) -> Upload | None:
        """Landing of this body, where the server lands bodies."""
        return None if self._landing is None else self

    @property
    def moved(self) -> int:
        """Bytes of the body that have come."""
        return self._moved

    @property
    def size(self) -> int:
        return 0 if self.lease is None else self.lease.size

    @property
    def claim(self) -> int:
        """Bytes that it is expected to hold at most."""
        return 0 if self.lease is None else self.lease.claim

    async def receive(self) -> MutableMapping[str, Any]:
        if self.over:
            return await self._receive()
        self._since = self._time()
        try:
            message = await self._receive()
        finally:
            self._pause()
        self._moved += len(message.get("body", b""))
        self.over = self._moved == self._length or not message.get("more_body", False)
        return message

    async def receive_into(self, destination: memoryview, progress: Callable[[int], None]) -> None:
        """Receive as by ``Landing.receive_into``."""
        assert self._landing is not None
        before = self._moved

        def came(count: int) -> None:
            self._moved = before + count
            progress(count)

        self._since = self._time()
        try:
            await self._landing.receive_into(destination, came)
        finally:
            self._pause()
        self.over = self._moved == self._length

    def _pause(self) -> None:
        if self._since is not None:
            self._waited += self._time() - self._since
            self._since = None

    def late(self, seconds: float) -> bool:
        """Tell whether its client is to go before others wait ``seconds`` for what it holds.

        Patience passes with the time that is waited for it, and comes back with bytes, at the rate
        that brings all that is leased within ``seconds``.
        """
        if not self.size or self._since is None or self.evicted:
            return False
        waited = self._waited + self._time() - self._since
        passed, gained = waited - self._seen[0], self._moved - self._seen[1]
        self._seen = waited, self._moved
        left = seconds * _GRACE if self._left is None else self._left
        left += gained * seconds / self.size - passed
        self._left = min(left, seconds * _GRACE)
        return self._left < 0

    def evict(self) -> None:
        """End the task, with an ``Overloaded`` from where this is entered."""
        self.evicted = True
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> Upload:
        self._uploads.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raise ``Overloaded`` in place of the ``CancelledError`` that is of ``evict``."""
        self._uploads.discard(self)
        if kind is not asyncio.CancelledError or not self.evicted or self._task is None:
            return
        if not self._task.uncancel():
            raise Overloaded(
                "the body came too slowly while other requests waited for the memory that it"
                " holds: send it faster, or again when the server is less busy"
            ) from None
