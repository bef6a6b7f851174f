"""Crowds of hostile or greedy connections, all on one event loop."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from benchmarks.client import PATIENCE, parsed_head, post

Address: TypeAlias = tuple[str, int]

_PATH = "/v2/models/cross_entropy/infer"
_PIECE = bytes(2**16)
_HALF_A_HEADER = b"POST / HTTP/1.1\r\nHost: lossd\r\nX-Slow: "
# SO_LINGER of 0 s: closing sends a reset and drops unsent bytes.
_RESET = struct.pack("ii", 1, 0)


async def connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection. Raises ``OSError``."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.open_connection(*address)


def head(size: int) -> bytes:
    """Head of a request that declares ``size`` bytes, none of which are tensors."""
    return post(_PATH, (), size, inference_header_content_length="1000").head


@asynccontextmanager
async def slow(address: Address, headers: int, bodies: int) -> AsyncIterator[None]:
    """Keep sockets open that send a header, or a body, at a byte a second.

    A socket that the server closes is opened again. All are open once the block is entered; they
    send at different times, so that they do not slow down each other.
    """
    firsts = [_HALF_A_HEADER] * headers + [head(2**20)] * bodies
    begun = [(first, asyncio.Event()) for first in firsts]
    tasks = [
        asyncio.create_task(_trickle(address, first, there, number / len(begun)))
        for number, (first, there) in enumerate(begun)
    ]
    try:
        async with asyncio.timeout(PATIENCE):
            for _, there in begun:
                await there.wait()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _trickle(address: Address, first: bytes, there: asyncio.Event, phase: float) -> None:
    while True:
        with suppress(OSError):
            _, writer = await connect(address)
            writer.write(first)
            there.set()
            try:
                await asyncio.sleep(phase)
                while not writer.is_closing():
                    await asyncio.sleep(1)
                    writer.write(b"a")
                    await writer.drain()
            finally:
                writer.transport.abort()


@dataclass
class Held:
    """Outcomes of clients that declare more than fits."""

    statuses: Counter[int] = field(default_factory=Counter)
    resets: int = 0  # closed without an answer
    silent: int = 0  # 503 without Retry-After

    @property
    def answered(self) -> int:
        """Number of clients that have an answer or were closed."""
        return self.statuses.total() + self.resets


async def hold(
    address: Address,
    count: int,
    size: int,
    until: Callable[[Held], Coroutine[Any, Any, None]],
) -> Held:
    """Run ``count`` clients that each declare ``size`` bytes and send the first half of them.

    After ``until(held)`` the clients without an answer send the rest.
    """
    held = Held()
    go = asyncio.Event()
    clients = [asyncio.create_task(_declare(address, size, go, held)) for _ in range(count)]
    await until(held)
    go.set()
    await asyncio.gather(*clients)
    return held


async def _declare(address: Address, size: int, go: asyncio.Event, held: Held) -> None:
    try:
        reader, writer = await connect(address)
        sending = asyncio.create_task(_send(writer, size, go))
        try:
            async with asyncio.timeout(PATIENCE):
                received = await reader.readuntil(b"\r\n\r\n")
                status, headers = parsed_head(received)
                await reader.readexactly(int(headers["content-length"]))
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    except (OSError, EOFError):
        held.resets += 1
        return
    held.statuses[status] += 1
    held.silent += status == 503 and "retry-after" not in headers


async def _send(writer: asyncio.StreamWriter, size: int, go: asyncio.Event) -> None:
    writer.write(head(size))
    pieces, half = size // len(_PIECE), size // len(_PIECE) // 2
    for number in range(pieces):
        if number == half:
            await go.wait()
        writer.write(_PIECE)
        await writer.drain()


async def vanish(address: Address, count: int, size: int) -> None:
    """Run ``count`` clients that disconnect after half of ``size`` bytes, every other by reset.

    All disconnect at once, after the server has had time to read what was sent.
    """
    writers = []
    for number in range(count):
        _, writer = await connect(address)
        if number % 2:
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.write(head(size))
        writers.append(writer)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(_half(writer, size) for writer in writers))
    await asyncio.sleep(1)
    for writer in writers:
        writer.transport.abort()
    closed = (writer.wait_closed() for writer in writers)
    await asyncio.gather(*closed, return_exceptions=True)


async def _half(writer: asyncio.StreamWriter, size: int) -> None:
    # The server closes connections that it refuses.
    with suppress(OSError):
        for _ in range(size // len(_PIECE) // 2):
            writer.write(_PIECE)
            await writer.drain()
