"""Applications that answer with what they are sent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

BODY = random.Random(6).randbytes(300_000)


async def answer(send: Any, body: bytes = b"", status: int = 200) -> None:
    length = str(len(body)).encode()
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-length", length)]}
    )
    await send({"type": "http.response.body", "body": body})


class Echo:
    """Answers each request with its body, and remembers its scope."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        self.gone = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(bytes(body))
        await answer(send, bytes(body))


class Lander:
    """Answers with its body, which it lands ``step`` bytes at a time after ``prefix`` messages."""

    def __init__(self, prefix: int = 1, step: int | None = None) -> None:
        self.prefix = prefix
        self.step = step
        self.progress: list[int] = []
        self.began = asyncio.Event()
        self.errors: list[BaseException] = []
        self.memory = bytearray()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        length = int(dict(scope["headers"]).get(b"content-length", 0))
        landing = scope.get("extensions", {}).get("lossd.landing")
        self.memory = bytearray(length)
        filled = 0
        for _ in range(self.prefix if landing else 10**9):
            message = await receive()
            assert message["type"] == "http.request"
            piece = message["body"]
            self.memory[filled : filled + len(piece)] = piece
            filled += len(piece)
            if not message["more_body"]:
                break
        self.began.set()
        try:
            while filled < length:
                end = length if self.step is None else min(length, filled + self.step)
                await landing.receive_into(
                    memoryview(self.memory)[filled:end], self.progress.append
                )
                filled = end
        except BaseException as error:
            self.errors.append(error)
            raise
        await answer(send, bytes(self.memory))


async def gone(work: Awaitable[object]) -> None:
    """Cancel ``work``, and wait for its end."""
    task = asyncio.ensure_future(work)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
