"""Several worker processes under uvicorn's supervisor, which is made quicker and bounded here."""

from __future__ import annotations

import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from service.cli import REFUSED

# Seconds that a worker may take to end after the time that its requests were given is up.
_LAST_SECONDS = 5


def run(config: Config, listening: socket.socket, ready: Callable[[], None]) -> bool:
    """Run the workers until told to stop; ``ready`` is called once all are.

    Returns whether none of them failed to start.
    """
    supervisor = _Supervisor(config, [listening], ready)
    supervisor.run()
    return all(process.exitcode != REFUSED for process in supervisor.processes)


class _Supervisor(Multiprocess):
    """Workers are started, watched, and started again where they die."""

    def __init__(
        self, config: Config, sockets: list[socket.socket], ready: Callable[[], None]
    ) -> None:
        super().__init__(config, sockets)
        self.should_exit = _Prompt()
        self._ready: Callable[[], None] | None = ready

    def keep_subprocess_alive(self) -> None:
        for process in self.processes:
            # Were its end of the pipe open here, a worker that dies before it answers would be
            # waited for as if it were alive, and all others with it.
            process.child_conn.close()
        super().keep_subprocess_alive()
        patience = self.config.timeout_worker_healthcheck
        if self._ready and all(process.is_ready(patience) for process in self.processes):
            self._ready()
            self._ready = None

    def terminate_all(self) -> None:
        super().terminate_all()
        # The workers close theirs: were this one open, clients would be kept waiting for nobody.
        for listening in self.sockets:
            listening.close()

    def join_all(self) -> None:
        deadline = time.monotonic() + (self.config.timeout_graceful_shutdown or 0) + _LAST_SECONDS
        for process in self.processes:
            process.process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
            process.join()


class _Prompt(threading.Event):
    """An event whose wait a signal ends, which the supervisor would else see half a second later.

    To set it in the signal's handler would not do: the thread that waits holds its lock at times.
    """

    def __init__(self) -> None:
        super().__init__()
        self._woken, self._waking = socket.socketpair()
        self._woken.setblocking(False)
        self._waking.setblocking(False)
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            select.select([self._woken], [], [], timeout)
            with suppress(BlockingIOError):
                self._woken.recv(4096)
        return self.is_set()
