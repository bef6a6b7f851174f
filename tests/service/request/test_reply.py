"""Answers are sent as they lie, piece by piece, and counted until they are sent."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from service.codecs import Encoded
from service.codecs.base import Answer
from service.memory.budget import Budget
from service.request.reply import Reply, size_of

MIB = 2**20


async def sent(
    answer: Answer, fail_at: int | None = None
) -> tuple[list[MutableMapping[str, Any]], int]:
    """Messages that are sent of ``answer``, and the bytes leased at most meanwhile."""
    messages: list[MutableMapping[str, Any]] = []
    leased: list[int] = []

    budget = Budget(64 * MIB, 1)
    reply = Reply(answer, "application/x-test", await budget.lease(5000))

    async def send(message: MutableMapping[str, Any]) -> None:
        leased.append(budget.leased)
        if len(messages) == fail_at:
            raise ConnectionError
        messages.append(message)

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError

    try:
        await reply({"type": "http"}, receive, send)
    finally:
        assert budget.leased == 0
    return messages, max(leased)


def headers(message: MutableMapping[str, Any]) -> dict[bytes, bytes]:
    return dict(message["headers"])


async def test_a_small_answer_is_one_message() -> None:
    (head, body), leased = await sent(b"abc")
    assert head["status"] == 200
    assert headers(head) == {b"content-length": b"3", b"content-type": b"application/x-test"}
    assert body["body"] == b"abc"
    assert leased == 5000


async def test_large_buffers_are_sent_in_pieces_and_not_copied() -> None:
    content, first, second = b"c" * 100, bytearray(MIB), bytearray(300_000)
    answer = Encoded(content, more=[memoryview(first), memoryview(second)])
    (head, *bodies), _ = await sent(answer)
    assert headers(head)[b"content-length"] == str(size_of(answer)).encode()
    assert b"".join(body["body"] for body in bodies) == content + first + second
    assert max(len(body["body"]) for body in bodies) <= 2**18
    assert {body["body"].obj is first for body in bodies[1:4]} == {True}
    assert [body.get("more_body", False) for body in bodies] == [True] * (len(bodies) - 1) + [False]


async def test_one_large_buffer_is_sent_in_pieces_too() -> None:
    (_, *bodies), _ = await sent(memoryview(bytes(MIB)))
    assert len(bodies) == 5
    assert sum(len(body["body"]) for body in bodies) == MIB


async def test_an_answer_may_say_more_of_itself() -> None:
    answer = Encoded(b"{}", {"X-Length": "2"}, "application/json")
    (head, body), _ = await sent(answer)
    assert headers(head)[b"x-length"] == b"2"
    assert headers(head)[b"content-type"] == b"application/json"
    assert headers(head)[b"content-length"] == b"2"
    assert body["body"] == b"{}"


@pytest.mark.parametrize("fail_at", range(6))
async def test_the_lease_ends_wherever_sending_fails(fail_at: int) -> None:
    with pytest.raises(ConnectionError):
        await sent(bytes(MIB), fail_at)
