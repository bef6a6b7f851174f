"""Server of uvicorn's, with a shutdown that loses no request on its way."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection
from types import FrameType

import uvicorn

from service.cli.signals import ENDING
from service.process.shutdown import DRAIN
from service.telemetry.counters import here

# Seconds in which connections are still accepted: at least, for handshakes that have begun, and at
# most, where other processes go on with the socket.
_LEAST_DRAIN = 0.1
_MOST_DRAIN = 1.0
_CLOSE = (b"connection", b"close")

_log = logging.getLogger("uvicorn.lossd")


class Server(uvicorn.Server):
    """Server that ends on every signal of ``ENDING``, each turned into SIGTERM.

    The first one begins a drain of ``drain_seconds``, the second ends that. Then ``shut`` is
    called: the system takes no new connections. Those that wait are still accepted, as closing the
    socket would reset them. In a worker, the supervisor's signal ``DRAIN`` begins a drain that only
    SIGTERM ends.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        shut: Callable[[], None] = lambda: None,
        drain_seconds: float = 0,
    ) -> None:
        super().__init__(config)
        self._shut = shut
        self._drain_seconds = drain_seconds
        self._drained: float | None = None  # when the drain is over
        gauges, state = here().gauges, self.server_state
        gauges["connections"] = lambda: len(state.connections)
        gauges["connections_limit"] = lambda: config.limit_concurrency or 0
        gauges["requests_in_flight"] = lambda: len(state.tasks)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals that are not ignored, and restore their handlers afterwards."""
        before = {number: signal.getsignal(number) for number in ENDING}
        for number, handler in before.items():
            if number is signal.SIGTERM:
                signal.signal(number, self.handle_exit)
            elif handler is not signal.SIG_IGN:
                signal.signal(number, self._handle_other)
        if DRAIN is not None and self.config.workers > 1:
            before[DRAIN] = signal.signal(DRAIN, self._drain)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        """Begin the drain, if there is one and this is the first signal; else the shutdown."""
        if self._drained is None and self._drain_seconds:
            self._drain()
            self._drained = time.monotonic() + self._drain_seconds
            _log.info("connections are taken for %g s more", self._drain_seconds)
        else:
            self.should_exit = True

    def _drain(self, *_: object) -> None:
        """Have every answer from now on be its connection's last."""
        self.config.encoded_headers.append(_CLOSE)
        self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's; the shutdown begins once the drain is over."""
        if self._drained is not None and time.monotonic() >= self._drained:
            self.should_exit = True
        return await super().on_tick(counter)

    def _handle_other(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.should_exit:
            self.force_exit = True
        else:
            # The application has a handler for SIGTERM alone.
            signal.raise_signal(signal.SIGTERM)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down as uvicorn does, once the connections that wait are accepted."""
        self._shut()
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (elapsed := loop.time() - began) < _MOST_DRAIN:
            if elapsed >= _LEAST_DRAIN and not connection.wait(sockets or [], 0):
                break
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)
