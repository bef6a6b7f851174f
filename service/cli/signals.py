"""Signals that end or change a server, and what the process of a worker leaves to its parent."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Each ends a server that is a single process; SIGHUP, too, as it has no other to replace it.
ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)
)
# Those of a supervisor, and two whose default would end a process that has no use for them.
_OTHERS = tuple(
    getattr(signal, name)
    for name in ("SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)


@contextmanager
def ending_with_success() -> Iterator[list[Callable[[], object]]]:
    """Have a signal that ends this process give the status 0: to stop as told is no failure.

    That is where a server has no handlers of its own yet. What is to be called before goes into
    the list. Under ``nohup``, SIGHUP stays ignored.
    """
    last: list[Callable[[], object]] = []

    def end(*_: Any) -> None:
        for call in last:
            call()
        # No exception: those who import modules catch them all, and go on with what is half made.
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
    # The end has been reached: what still comes changes nothing.
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def leave_to_parent() -> None:
    """In a worker: a terminal sends its signals to all processes, and the parent acts on them."""
    for number in (*ENDING, *_OTHERS):
        if number is not signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*ENDING, *_OTHERS})


@contextmanager
def blocked() -> Iterator[None]:
    """While it lasts, a new process is born deaf to what ``leave_to_parent`` ignores.

    Else the signals of a terminal would end it while it imports its modules.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    deaf = {number for number in (*ENDING, *_OTHERS) if number is not signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, deaf)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
