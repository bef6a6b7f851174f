"""A connection without a socket, on an event loop whose time the test moves on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from service.protocol import Http, Limits
from service.protocol.connection import Connection
from tests.service.protocol.apps import Echo
from tests.service.protocol.messages import Answers


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time ``Wire.wait`` moves on."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Wire(asyncio.Transport):
    """The server's end is a transport; the test's is ``send``, ``sent``, ``stop_reading``..."""

    def __init__(
        self,
        app: Any,
        limits: Limits | None = None,
        state: ServerState | None = None,
        **config: Any,
    ) -> None:
        super().__init__()
        self.loop = cast(Loop, asyncio.get_running_loop())
        self.limits = limits or Limits()
        self.state = state or ServerState()
        config = {"lifespan": "off", "log_config": None, "access_log": False, **config}
        self.connection: Connection = Http(self.limits)(Config(app, **config), self.state, {})
        self.sent = bytearray()  # what the server has sent
        self.read = 0  # bytes that the server has read
        self.ended = False  # the server will send no more
        self.lost = False
        self.aborted = False
        self.reads = True  # whether this client does
        self._reading = True
        self._closing = False
        self._pending = bytearray()
        self._unread = 0
        self.connection.connection_made(self)

    # The test's end.

    def push(self, data: bytes) -> None:
        self._pending += data
        self._deliver()

    async def send(self, data: bytes) -> None:
        self.push(data)
        await settle()

    async def send_pieces(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            await self.send(piece)

    async def hang_up(self, error: Exception | None = None) -> None:
        """The client is gone."""
        if error is None and not self._closing:
            self.connection.eof_received()
        self._lose(error)
        await settle()

    async def wait(self, seconds: float, step: float | None = None) -> None:
        """Let time pass, a look at a time."""
        step = step or self.limits.look_seconds
        for _ in range(round(seconds / step)):
            self.loop.ahead += step
            await settle()

    async def take(self, count: int) -> None:
        """The client reads ``count`` bytes of what lies unread."""
        self._unread = max(0, self._unread - count)
        if not self._unread:
            self.connection.resume_writing()
            if self._closing:
                self._lose(None)
        await settle()

    @property
    def held(self) -> int:
        """Bytes that the server leaves in its socket."""
        return len(self._pending)

    @property
    def open(self) -> bool:
        return not (self._closing or self.ended)

    # The server's end.

    def write(self, data: Any) -> None:
        assert not self.ended
        assert not self.lost
        self.sent += data
        if not self.reads:
            self._unread += len(data)
            self.connection.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self._unread

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self.loop.call_soon(self._deliver)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        if not self._unread:
            self.loop.call_soon(self._lose, None)

    def abort(self) -> None:
        self.aborted = self._closing = True
        self.loop.call_soon(self._lose, None)

    def _lose(self, error: Exception | None) -> None:
        self._closing = True
        if not self.lost:
            self.lost = True
            self.connection.connection_lost(error)

    def _deliver(self) -> None:
        while self._pending and self._reading and not self._closing:
            buffer = memoryview(self.connection.get_buffer(-1))
            piece = bytes(self._pending[: len(buffer)])
            assert piece
            buffer[: len(piece)] = piece
            del self._pending[: len(piece)]
            self.read += len(piece)
            self.connection.buffer_updated(len(piece))


def problem(wire: Wire) -> dict[str, Any]:
    """The last answer, which must be a problem that ends the connection."""
    answers = Answers(bytes(wire.sent))
    assert answers.headers[-1]["content-type"] == "application/problem+json"
    assert answers.headers[-1]["connection"] == "close"
    assert not wire.open
    body: dict[str, Any] = json.loads(answers.bodies[-1])
    assert body["status"] == answers.statuses[-1]
    assert body["error"] == body["detail"]
    return body


async def exchange(data: list[bytes], limits: Limits | None = None) -> tuple[bytes, Wire, Echo]:
    echo = Echo()
    wire = Wire(echo, limits)
    await wire.send_pieces(data)
    return bytes(wire.sent), wire, echo
