"""States of one connection's incoming bytes, and which state follows which."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Place in the stream of requests that the next byte from the client belongs to."""

    HEADER = "between two requests, or in the header section of one"
    SKIPPED = "behind the header section of an upgrade, whose body the parser leaves out"
    BODY = "in a body that the parser reads"
    LANDING = "in a body of known length that goes past the parser"
    DONE = "behind the connection's last request"
    REFUSED = "behind a request that was refused"


# States in which all bytes that still come are ignored.
ENDED = (State.DONE, State.REFUSED)

# A skipped body is read by another parser or lands; a landing may also begin within a body.
_NEXT = {
    State.HEADER: {State.BODY, State.SKIPPED, State.REFUSED},
    State.SKIPPED: {State.BODY, State.LANDING, State.REFUSED},
    State.BODY: {State.LANDING, State.HEADER, State.DONE, State.REFUSED},
    State.LANDING: {State.HEADER, State.DONE, State.REFUSED},
}


def following(state: State, chosen: State) -> State:
    """Return ``chosen``, which must be allowed to follow ``state``."""
    assert chosen in _NEXT.get(state, ()), f"{chosen.name} does not follow {state.name}"
    return chosen
