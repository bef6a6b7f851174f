"""More connections than there may be: each is told so, and the others are served on."""

from __future__ import annotations

import pytest
from uvicorn.server import ServerState

from tests.service.protocol.apps import Echo
from tests.service.protocol.messages import CHUNKED, Answers, chunked, cuts, request
from tests.service.protocol.transport import Wire, problem, settle

ASKED = request(body=b"x" * 3000)


def made(count: int, most: int) -> tuple[list[Wire], Echo, ServerState]:
    echo, state = Echo(), ServerState()
    wires = [Wire(echo, state=state, limit_concurrency=most) for _ in range(count)]
    return wires, echo, state


def check_refusal(wire: Wire, most: int) -> None:
    refused = problem(wire)
    assert refused["type"] == "urn:lossd:problem:overloaded"
    assert f"{most} connections" in refused["detail"]
    assert Answers(bytes(wire.sent)).headers[0]["retry-after"] == "1"


@pytest.mark.parametrize(("most", "told"), [(1, 1), (8, 1), (16, 2), (100, 12)])
async def test_who_is_one_too_many_is_told_and_who_was_there_is_served(
    most: int, told: int
) -> None:
    wires, echo, _ = made(most + told + 3, most)
    await settle()
    served, refused, turned_away = wires[:most], wires[most:-3], wires[-3:]
    for wire in turned_away:
        check_refusal(wire, most)
    assert not any(wire.sent for wire in refused)
    for wire in refused:
        await wire.send(ASKED)
        check_refusal(wire, most)
    for wire in served:
        await wire.send(ASKED + ASKED)
        assert Answers(bytes(wire.sent)).statuses == [200, 200]
        assert wire.open
    assert len(echo.scopes) == 2 * most


@pytest.mark.parametrize(
    "data",
    [
        ASKED,
        request(CHUNKED, body=chunked([b"x" * 50])),
        request("Expect: 100-continue", "Content-Length: 100000"),
        request("Connection: upgrade", "Upgrade: x", body=b"x" * 50),
        request(body=b"x" * 200_000),
    ],
    ids=["small", "chunks", "expecting", "upgrade", "large"],
)
async def test_a_refusal_is_the_same_however_the_request_is_cut(data: bytes) -> None:
    for pieces in cuts(data + ASKED, seed=10):
        (_, wire), echo, _ = made(2, 1)
        await wire.send_pieces(pieces)
        check_refusal(wire, 1)
        assert not echo.scopes


async def test_there_is_room_again_once_a_connection_is_gone() -> None:
    wires, echo, state = made(3, 2)
    await wires[0].hang_up()
    # It was one too many when it came, and others have been let in by what it was told.
    await wires[2].send(ASKED)
    check_refusal(wires[2], 2)
    await wires[2].hang_up()
    after = Wire(echo, state=state, limit_concurrency=2)
    await after.send(ASKED)
    assert Answers(bytes(after.sent)).statuses == [200]
