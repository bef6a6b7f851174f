"""Worker processes and their supervisor, which carries out the actions of its state machine."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from uvicorn import Config

from service.cli import signals
from service.cli.events import Action, Command, Ended, Event, Heard, Tick, Verb
from service.cli.listening import Listener
from service.cli.server import Server
from service.cli.supervision import State, advance
from service.process.shutdown import DRAIN
from service.telemetry import counters
from service.telemetry.memory import Table

# Seconds that a worker may take to end after the time for its requests is up.
_LAST_SECONDS = 5
# Seconds between two heartbeats of a worker, and between two checks whether it serves.
_BEAT = 1.0
_LOOK = 0.1

_COMMANDS = {
    "SIGTERM": Command.STOP,
    "SIGINT": Command.STOP,
    "SIGQUIT": Command.STOP,
    "SIGBREAK": Command.STOP,
    "SIGHUP": Command.RENEW,
    "SIGTTIN": Command.MORE,
    "SIGTTOU": Command.FEWER,
}

_log = logging.getLogger("uvicorn.lossd")


def run(
    config: Config,
    listener: Listener,
    ready: Callable[[], None],
    table: Table,
    drain_seconds: float = 0,
) -> int:
    """Run the workers until told to stop, and return the status to end with.

    ``ready`` is called once all workers are. Each worker counts in a row of ``table``. They go on
    for ``drain_seconds`` once told to stop.
    """
    state = State(
        wanted=config.workers,
        silence=config.timeout_worker_healthcheck,
        grace=(config.timeout_graceful_shutdown or 0) + _LAST_SECONDS,
        drain=drain_seconds if DRAIN is not None else 0,
    )
    with _Processes(config, listener, ready, table) as processes:
        events: list[Event] = [Tick()]
        while not state.over:
            for event in events:
                state, actions = advance(state, event, time.monotonic())
                for action in actions:
                    processes.act(action)
            events = [] if state.over else processes.events(state.next_deadline(time.monotonic()))
    return state.status


class _Processes:
    """Worker processes, signals and socket: events come from them, actions are done on them.

    ``_workers`` maps a worker's number to its process, to this end of the pipe to it, and to its
    row of ``table``.
    """

    def __init__(
        self, config: Config, listener: Listener, ready: Callable[[], None], table: Table
    ) -> None:
        self._table = table
        self._config = config
        self._listener = listener
        self._ready = ready
        self._spawn = multiprocessing.get_context("spawn")
        self._workers: dict[int, tuple[BaseProcess, Connection, int]] = {}
        self._stopped = False
        self._woken, self._waking = socket.socketpair()
        self._woken.setblocking(False)
        self._waking.setblocking(False)

    def __enter__(self) -> _Processes:
        # Python writes the signal's number there.
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        for name in _COMMANDS:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: None)
        _log.info("supervisor started: process %d", os.getpid())
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for process, _pipe, _row in self._workers.values():
            process.kill()  # there are none, unless this ends by an error

    def events(self, deadline: float | None) -> list[Event]:
        """Wait for events, until ``deadline`` at most; a tick is always among them."""
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        sentinels = {process.sentinel: n for n, (process, *_) in self._workers.items()}
        pipes = {pipe: n for n, (_, pipe, _) in self._workers.items() if not pipe.closed}
        there = wait([self._woken, *sentinels, *pipes], timeout)
        # Heartbeats first: they were sent before the tick that checks the deadlines.
        made: list[Event] = []
        for one in there:
            if isinstance(one, Connection):
                made += self._heard(one, pipes[one])
        made += [
            Ended(sentinels[one], self._reap(sentinels[one])) for one in there if one in sentinels
        ]
        return [*made, *self._commands(), Tick()]

    def _heard(self, pipe: Connection, number: int) -> Iterator[Event]:
        try:
            while pipe.poll():
                yield Heard(number, pipe.recv_bytes() == _SERVING)
        except (EOFError, OSError):
            pipe.close()  # the process has ended, which its sentinel reports

    def _reap(self, number: int) -> int:
        process, pipe, row = self._workers.pop(number)
        process.join()
        pipe.close()
        self._table.retire(row)
        return process.exitcode or 0

    def _commands(self) -> Iterator[Event]:
        with contextlib.suppress(BlockingIOError):
            for number in self._woken.recv(4096):
                name = signal.Signals(number).name
                command = _COMMANDS.get(name)
                if command is Command.STOP and name == "SIGINT" and self._stopped:
                    command = Command.ABORT
                self._stopped |= command is Command.STOP
                if command is not None:
                    _log.info("%s received", name)
                    yield command

    def act(self, action: Action) -> None:
        """Carry out an action of the state machine."""
        worker = self._workers.get(action.number)
        match action.verb:
            case Verb.START:
                self._start(action.number)
            case Verb.DRAIN if worker and worker[0].pid and DRAIN is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker[0].pid, DRAIN)
            case Verb.TERMINATE if worker:
                worker[0].terminate()
            case Verb.KILL if worker:
                worker[0].kill()
            case Verb.CLOSE:
                self._listener.shut()
                # The workers close theirs too: while one is open, clients can connect and wait.
                self._listener.socket.close()
            case Verb.GREET:
                self._ready()
            case Verb.INFORM:
                _log.info("%s", action.text)
            case Verb.WARN:
                _log.warning("%s", action.text)

    def _start(self, number: int) -> None:
        here, there = self._spawn.Pipe()
        row = self._table.assign()
        given = (self._config, self._listener.socket, there, self._table, row)
        process = self._spawn.Process(target=_work, args=given, name=f"lossd-{number}")
        with signals.blocked():
            process.start()
        # While it is open here too, the end of the pipe would not be seen.
        there.close()
        self._workers[number] = process, here, row
        _log.info("worker %d started: process %d", number, process.pid)


_STARTING, _SERVING = b"starting", b"serving"


def _work(
    config: Config, listening: socket.socket, pipe: Connection, table: Table, row: int
) -> None:
    signals.leave_to_parent()
    counters.use(table, row)
    config.configure_logging()
    server = Server(config)
    threading.Thread(target=_live, args=(server, pipe), daemon=True).start()
    server.run([listening])


def _live(server: Server, pipe: Connection) -> None:
    """Send heartbeats to the supervisor; end the worker if the supervisor is gone."""
    said: Any = None
    at = 0.0
    with contextlib.suppress(OSError, EOFError):
        while not pipe.poll(_BEAT if said == _SERVING else _LOOK):
            now, what = time.monotonic(), _SERVING if server.started else _STARTING
            if what != said or now - at >= _BEAT:
                said, at = what, now
                pipe.send_bytes(what)
    # The supervisor sends nothing: the pipe has ended.
    _log.warning("the supervisor is gone: this worker ends")
    os.kill(os.getpid(), signal.SIGTERM)
