"""Signals that end or change a server, and those that a worker leaves to its supervisor."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def _present(*names: str) -> tuple[signal.Signals, ...]:
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


# Signals that end a server of one process; SIGHUP too, as no other process could replace it.
ENDING = _present("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
# Signals for a supervisor, and two whose default action would end the process.
_OTHERS = _present("SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2")
# Signals that a worker leaves to its supervisor: a terminal sends them to both.
_LEFT = {*ENDING, *_OTHERS} - {signal.SIGTERM}


@contextmanager
def ending_with_success() -> Iterator[list[Callable[[], object]]]:
    """End with status 0 on a signal, until the server has handlers of its own.

    To stop as told is no failure. Functions in the yielded list are called before. Under ``nohup``,
    SIGHUP stays ignored.
    """
    last: list[Callable[[], object]] = []

    def end(*_: Any) -> None:
        for call in last:
            call()
        # No exception: code that imports modules may catch it, and go on with a half-made one.
        os._exit(0)

    before = {number: signal.getsignal(number) for number in (*ENDING, *_OTHERS)}
    for number in ENDING:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, end)
    for number in _OTHERS:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield last
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise
    # The server has ended: a later signal must not change the status.
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def leave_to_parent() -> None:
    """Ignore all signals but SIGTERM, in a worker."""
    for number in _LEFT:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*ENDING, *_OTHERS})


@contextmanager
def blocked() -> Iterator[None]:
    """Block the signals that ``leave_to_parent`` ignores; a new process inherits that.

    Else a terminal's signals would end it while it imports its modules.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
