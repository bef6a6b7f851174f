"""The states of a connection's bytes: the way of each kind of request through them."""

from __future__ import annotations

from typing import Any

import pytest

from service.protocol import answer_order, requests
from service.protocol.states import State, following
from tests.service.protocol.apps import BODY, Lander
from tests.service.protocol.messages import CHUNKED, chunked, request
from tests.service.protocol.transport import Wire, settle

UPGRADE = ("Connection: upgrade", "Upgrade: x")


@pytest.mark.parametrize(
    ("data", "way"),
    [
        (request("Host: a"), "HEADER BODY HEADER"),
        (request(body=b"abc"), "HEADER BODY HEADER"),
        (request(CHUNKED, body=chunked([b"abc"])), "HEADER BODY HEADER"),
        (request("Connection: close", body=b"abc"), "HEADER BODY DONE"),
        (request(*UPGRADE), "HEADER BODY HEADER"),
        (request(*UPGRADE, body=b"abc"), "HEADER SKIPPED LANDING HEADER"),
        (request(*UPGRADE, CHUNKED, body=chunked([b"abc"])), "HEADER SKIPPED BODY HEADER"),
        (request(body=BODY), "HEADER BODY LANDING HEADER"),
        (request(body=BODY) + b"x y\r\n", "HEADER BODY LANDING HEADER REFUSED"),
        (request(CHUNKED, body=b"x"), "HEADER BODY REFUSED"),
        (b"GET", "HEADER"),
    ],
)
async def test_a_request_goes_its_way(
    monkeypatch: pytest.MonkeyPatch, data: bytes, way: str
) -> None:
    passed = [State.HEADER]

    def noted(state: State, chosen: State) -> State:
        passed.append(following(state, chosen))
        return passed[-1]

    monkeypatch.setattr(requests, "following", noted)
    monkeypatch.setattr(answer_order, "following", noted)

    app: Any = Lander(0)
    wire = Wire(app)
    await wire.send(data)
    await settle()
    assert " ".join(state.name for state in passed) == way


def test_nothing_follows_the_end() -> None:
    for state in State:
        for end in (State.DONE, State.REFUSED):
            with pytest.raises(AssertionError, match=f"{state.name} does not follow {end.name}"):
                following(end, state)
