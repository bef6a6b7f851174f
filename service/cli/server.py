"""Server of uvicorn's, with a shutdown that loses no request on its way."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection
from types import FrameType

import uvicorn

from service.cli.signals import ENDING
from service.telemetry.counters import here

# Seconds in which connections are still accepted: at least, for handshakes that have begun, and at
# most, where other processes go on with the socket.
_LEAST_DRAIN = 0.1
_MOST_DRAIN = 1.0


class Server(uvicorn.Server):
    """Server that ends on every signal of ``ENDING``, each turned into SIGTERM.

    ``shut`` is called first: the system then takes no new connections. Those that wait are still
    accepted, as closing the socket would reset them.
    """

    def __init__(self, config: uvicorn.Config, shut: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._shut = shut
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
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

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
