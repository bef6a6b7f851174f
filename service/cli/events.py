"""Events that the supervisor's state machine is told of, and actions that it answers with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Command(Enum):
    """Command that a signal means: end, end at once, replace all workers, one more, one fewer."""

    STOP = 1
    ABORT = 2
    RENEW = 3
    MORE = 4
    FEWER = 5


@dataclass(frozen=True, slots=True)
class Heard:
    """Event: worker ``number`` has reported that it lives, and whether it serves yet."""

    number: int
    serving: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """Event: the process of worker ``number`` has ended with ``status``."""

    number: int
    status: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Event: time has passed."""


Event: TypeAlias = Command | Heard | Ended | Tick


class Verb(Enum):
    """Kind of an action, on one worker or on the server as a whole."""

    START = 1
    DRAIN = 2  # say that it is not ready, and serve on
    TERMINATE = 3
    KILL = 4
    CLOSE = 5  # take no more connections
    GREET = 6  # all workers serve, for the first time
    INFORM = 7
    WARN = 8


@dataclass(frozen=True, slots=True)
class Action:
    """Action for the supervisor; ``text`` is to be logged, for the verbs that log."""

    verb: Verb
    number: int = 0
    text: str = ""
