"""Receives a request's body into leased memory, placed so that most of its data is aligned."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Sequence
from typing import Protocol

from service import regimes
from service.codecs import Codec
from service.errors import DecodeError, Disconnected, TooLarge
from service.memory.pages import ALIGNMENT, Bytes
from service.memory.upload import Landing, Receive

_LENGTH = re.compile(r"[0-9]{1,20}")


class Lease(Protocol):
    """Part of ``service.memory.budget.Lease`` that receiving needs."""

    def memory(self, size: int) -> Bytes: ...
    async def grow(self, size: int) -> None: ...
    def expect_more(self) -> None: ...


class Body:
    """Body that is being received into ``memory``, which is writable and as long as it will be.

    ``filled`` bytes of it are there, which any thread may ask. More come only while ``at_least`` or
    ``all`` is awaited, by one task at a time; ``progress`` is then called on the event loop with
    ``filled`` whenever it has changed.
    """

    def __init__(self, memory: memoryview, filled: int, source: Landing) -> None:
        self.memory = memory
        self.filled = filled
        self.progress: Callable[[int], None] = lambda filled: None
        self._source = source

    async def at_least(self, count: int) -> None:
        """Return once ``count`` bytes, of as many as there are at most, have come.

        Raises ``DecodeError`` where fewer come, and ``Disconnected`` where the client goes away.
        """
        start = self.filled
        if count <= start:
            return

        def arrived(more: int) -> None:
            self.filled = start + more
            self.progress(self.filled)

        await self._source.receive_into(self.memory[start:count], arrived)

    def discard(self, count: int) -> None:
        """Take note that none of the first ``count`` bytes is read any more."""

    async def all(self) -> memoryview:
        """Return the whole body. Raises as ``at_least``, and ``DecodeError`` where more comes."""
        if self.filled < len(self.memory):
            await self.at_least(len(self.memory))
        if isinstance(self._source, Reception) and not self._source.ended:
            await self._source.end()
        return self.memory


def declared_length(content_lengths: Sequence[str], limit: int) -> int | None:
    """Read the body's length in bytes from its Content-Length; ``None`` where there is none.

    Raises ``DecodeError`` where it is not one number, ``TooLarge`` where it is above ``limit``.
    """
    if not content_lengths:
        return None
    if len(content_lengths) > 1 or not _LENGTH.fullmatch(content_lengths[0]):
        raise DecodeError("Content-Length is not a number of bytes", where="content-length")
    length = int(content_lengths[0])
    if length > limit:
        raise TooLarge(_over(limit) + f", not {length:,}", where="body")
    return length


class Reception:
    """Receives a body of ``length`` bytes (``None``: unknown), of ``limit`` bytes at most.

    ``prefix`` is its beginning, as far as it has come. By ASGI's ``receive``, which any server
    gives; what comes after the beginning, through ``landing`` if there is one.
    All methods raise ``DecodeError`` where more or less than ``length`` comes, ``TooLarge`` above
    ``limit``, and ``Disconnected`` where the client goes away.
    """

    __slots__ = (
        "_aligned_at", "_came", "_codec", "_landing", "_limit", "_more", "_rest", "length",
        "prefix", "receive",
    )  # fmt: skip

    def __init__(
        self,
        receive: Receive,
        landing: Landing | None,
        codec: Codec,
        length: int | None,
        limit: int,
    ) -> None:
        self.length = length
        self.prefix = bytearray()
        self.receive = receive
        self._landing = landing
        self._codec = codec
        self._limit = limit
        self._more = True
        self._came = 0
        self._rest = memoryview(b"")
        self._aligned_at: int | None = None

    @property
    def source(self) -> Landing:
        """Gives what comes after the beginning."""
        return self._landing or self

    async def begin(self) -> bytearray:
        """Receive ``prefix`` up to the data to align, or 64 KiB and a message if none is named."""
        ask_at = 0
        # Up to there, since what precedes it says where the other tensors are.
        while self._more and len(self.prefix) < min(
            regimes.HEAD_BYTES, self._aligned_at or regimes.HEAD_BYTES
        ):
            self.prefix += await self._next()
            # Asked again only of twice as much, since each time it may be read from its start.
            if self._aligned_at is None and (len(self.prefix) >= ask_at or not self._more):
                self._aligned_at = self._codec.aligned_at(bytes(self.prefix))
                ask_at = 2 * len(self.prefix)
        return self.prefix

    def start_in(self, memory: Bytes) -> int:
        """Index in ``memory``, below ALIGNMENT, from which on the data is aligned."""
        return -(memory.ctypes.data + (self._aligned_at or 0)) % ALIGNMENT

    def placed(self, memory: Bytes, length: int) -> memoryview:
        """Room for a body of ``length`` bytes in ``memory``; its beginning is there."""
        start = self.start_in(memory)
        content = memory[start : start + length].data
        content[: len(self.prefix)] = self.prefix
        return content

    async def body(self, lease: Lease) -> Body:
        """Receive the beginning of the body into memory of ``lease``, which has its length.

        Where that is unknown (a chunked body) it is there as a whole, and ``lease`` has grown by
        it. Raises what ``lease`` raises, too.
        """
        length, short = self.length, regimes.JOINED_BODY_BYTES
        if self._landing is None and length is not None and length <= short:
            content = bytearray()
            while self._more:
                content += await self._next()
            return Body(memoryview(content), len(content), self)
        prefix = await self.begin()
        if length is None and self._more:
            return await self._grown(lease)
        if length is None:
            length = len(prefix)
            await lease.grow(length)
        memory = self.placed(lease.memory(length + ALIGNMENT), length)
        return Body(memory, len(prefix), self.source)

    async def receive_into(self, destination: memoryview, progress: Callable[[int], None]) -> None:
        """Receive as ``Landing.receive_into`` does, by copying."""
        filled = 0
        while filled < len(destination):
            chunk = self._rest or memoryview(await self._next())
            piece = chunk[: len(destination) - filled]
            self._rest = chunk[len(piece) :]
            destination[filled : filled + len(piece)] = piece
            filled += len(piece)
            progress(filled)

    @property
    def ended(self) -> bool:
        """True once all of the body has come."""
        return not self._more

    async def end(self) -> None:
        """Return once the body has ended."""
        while self._more:
            await self._next()

    async def _next(self) -> bytes:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk: bytes = message.get("body", b"")
        self._more = message.get("more_body", False)
        self._came += len(chunk)
        if self.length is not None and self._came > self.length:
            raise DecodeError(f"more than the {self.length:,} bytes declared", where="body")
        if self._came > self._limit:
            raise TooLarge(_over(self._limit), where="body")
        if self.length is not None and self._came < self.length and not self._more:
            raise DecodeError(
                f"{self._came:,} bytes, but {self.length:,} were declared", where="body"
            )
        return chunk

    async def _grown(self, lease: Lease) -> Body:
        """Receive a body of unknown length, in memory that doubles, and is leased as it is filled.

        Pages that nothing is written to are none: so it never leases what it does not come to.
        """
        start = -(self._aligned_at or 0) % ALIGNMENT
        filled = len(self.prefix)
        capacity = leased = min(2 * max(filled, regimes.HEAD_BYTES), self._limit)
        lease.expect_more()
        await lease.grow(leased)
        memory = _mapped(start + capacity)
        memory[start : start + filled] = self.prefix
        while self._more:
            chunk = await self._next()
            end = filled + len(chunk)
            if end > leased:
                ahead = min(leased, regimes.UNKNOWN_AHEAD_BYTES)
                more = min(max(end, leased + ahead), self._limit) - leased
                await lease.grow(more)
                leased += more
            if end > capacity:
                capacity = min(max(end, 2 * capacity), self._limit)
                memory = _resized(memory, start + capacity)
            memory[start + filled : start + end] = chunk
            filled = end
        return Body(memoryview(memory)[start : start + filled], filled, self)


def _mapped(size: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError from error


def _resized(memory: mmap.mmap, size: int) -> mmap.mmap:
    """``memory`` with room for ``size`` bytes: its pages move, and no byte is copied."""
    try:
        memory.resize(size)
    except SystemError:  # macOS has no mremap
        larger = _mapped(size)
        larger[: len(memory)] = memory[:]
        return larger
    except OSError as error:
        raise MemoryError from error
    return memory


def _over(limit: int) -> str:
    return f"the body may hold at most {limit:,} bytes"
