"""Crowds of connections that mean harm, or just ask for too much, for use on one event loop."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from benchmarks.http.client import PATIENCE, parsed_head, post

Address: TypeAlias = tuple[str, int]

_PATH = "/v2/models/cross_entropy/infer"
_PIECE = bytes(2**16)
_HALF_A_HEADER = b"POST / HTTP/1.1\r\nHost: lossd\r\nX-Slow: "
# Closing then sends a reset, in place of what is still to be sent.
_RESET = struct.pack("ii", 1, 0)


async def connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection of its own. Raises ``OSError``."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.open_connection(*address)


def head(size: int) -> bytes:
    """That of a request that declares ``size`` bytes, none of which are tensors."""
    return post(_PATH, (), size, inference_header_content_length="1000").head


@asynccontextmanager
async def slow(address: Address, headers: int, bodies: int) -> AsyncIterator[None]:
    """So many sockets that send a header, and a body, a byte a second for as long as this lasts.

    One that the server closes is opened again. All are there once the block is entered, and send
    at times of their own: else it is each other that they slow down.
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
    """What came of clients that declare more than fits."""

    statuses: Counter[int] = field(default_factory=Counter)
    resets: int = 0  # closed without an answer
    silent: int = 0  # 503 that do not say when to come again

    @property
    def answered(self) -> int:
        """How many have come to an end."""
        return self.statuses.total() + self.resets


async def hold(
    address: Address,
    count: int,
    size: int,
    until: Callable[[Held], Coroutine[Any, Any, None]],
) -> Held:
    """``count`` clients that each declare ``size`` bytes and send the first half of them.

    After ``until(held)`` those that are not answered yet send the rest.
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
    """``count`` clients that send the first half of ``size`` bytes and go, every other by a reset.

    They go all at once, when each has sent what it will and the server has had time to read it.
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
    # A server that reads no more of it has refused it.
    with suppress(OSError):
        for _ in range(size // len(_PIECE) // 2):
            writer.write(_PIECE)
            await writer.drain()
