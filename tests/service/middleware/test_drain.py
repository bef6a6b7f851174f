"""Requests that the server cancels are answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from service.middleware.drain import Drain


async def cancelled(*already: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """Messages of an application that is cancelled once it has sent ``already``."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        if sent and message["type"] == "http.response.start":
            raise RuntimeError("as uvicorn does")
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError

    async def app(*_: Any) -> None:
        for message in already:
            await send(message)
        await asyncio.Event().wait()

    task = asyncio.create_task(Drain(app)({"type": "http"}, receive, send))
    await asyncio.sleep(0)
    task.cancel()
    await task
    return sent


async def test_what_is_cancelled_is_a_503() -> None:
    start, body = await cancelled()
    assert start["status"] == 503
    assert json.loads(body["body"])["type"] == "urn:lossd:problem:stopping"


async def test_an_answer_that_has_begun_stays_the_only_one() -> None:
    begun = {"type": "http.response.start", "status": 200, "headers": []}
    assert await cancelled(begun) == [begun]


async def test_what_is_no_request_is_cancelled() -> None:
    async def app(*_: Any) -> Any:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Drain(app)({"type": "lifespan"}, app, app)
