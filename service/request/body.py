"""Receives a request's body into leased memory, placed so that its first tensor is aligned."""

from __future__ import annotations

import mmap
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Protocol, TypeAlias

from service.codecs import Codec, DecodeError, TooLarge
from service.errors import Disconnected
from service.memory.pages import ALIGNMENT, Bytes

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]

UNPLACED = 2**13  # bytes of a body whose tensors are sooner copied than placed
_PREFIX = 2**16  # bytes in which a body should say where its first tensor starts
_LEASED = 2**20  # bytes, at most, that are leased ahead of a body of unknown length
_LENGTH = re.compile(r"[0-9]{1,20}")


class Lease(Protocol):
    """Memory that is counted, as ``service.memory.budget`` gives it."""

    def memory(self, size: int) -> Bytes:
        """``size`` bytes of what is leased."""

    async def grow(self, size: int) -> None:
        """Lease ``size`` bytes more."""

    def expect_more(self) -> None:
        """Be told that the body, of unknown length, does not end with its beginning."""


class Landing(Protocol):
    """A server's scope extension ``lossd.landing``: the socket is read into memory of ours."""

    async def receive_into(self, destination: memoryview, progress: Callable[[int], None]) -> None:
        """Fill ``destination`` with the body's next bytes; ``progress`` is told how many are there.

        Raises ``Disconnected`` where the client goes away, or is too slow.
        """


class Incoming:
    """A body on its way into ``memory``, which is writable and as long as the body will be.

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

    def passed(self, count: int) -> None:
        """Take note that of the first ``count`` bytes none is looked at any more."""

    async def all(self) -> memoryview:
        """The whole body. Raises as ``at_least``, and ``DecodeError`` where more comes."""
        await self.at_least(len(self.memory))
        if isinstance(self._source, _Messages):
            await self._source.end()
        return self.memory


def declared_length(content_lengths: Sequence[str], limit: int) -> int | None:
    """The body's length in bytes as its Content-Length says, ``None`` where there is none.

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


class Begun:
    """A body of ``length`` bytes (``None``: unknown), of which ``prefix`` is there.

    ``tensor_at`` is where that says that the first tensor starts, or 0.
    """

    def __init__(
        self, messages: _Messages, length: int | None, prefix: bytearray, tensor_at: int
    ) -> None:
        self.messages = messages
        self.length = length
        self.prefix = prefix
        self.tensor_at = tensor_at

    def start_in(self, memory: Bytes) -> int:
        """Where in ``memory`` it is to start, at most ALIGNMENT bytes from the first."""
        return -(memory.ctypes.data + self.tensor_at) % ALIGNMENT


async def begin(receive: Receive, codec: Codec, length: int | None, limit: int) -> Begun:
    """Receive a body up to where it says where its first tensor starts, or 64 KiB and a message.

    Raises ``DecodeError`` where more or less than ``length`` comes, ``TooLarge`` above ``limit``,
    and ``Disconnected`` where the client goes away.
    """
    messages = _Messages(receive, length, limit)
    return Begun(messages, length, *await _prefix(messages, codec))


async def whole(begun: Begun, landing: Landing | None, limit: int, lease: Lease) -> Incoming:
    """The body, in memory of ``lease``, which has as much as its length.

    Where that is unknown (a chunked body) it is there as a whole, of at most ``limit`` bytes by
    which ``lease`` has grown. What comes later is received through ``landing``, if there is one.
    Raises as ``begin``, and what ``lease`` raises.
    """
    length, prefix = begun.length, begun.prefix
    if length is None and begun.messages.more:
        return await _grown(begun, limit, lease)
    if length is None:
        length = len(prefix)
        await lease.grow(length)
    memory = lease.memory(length + ALIGNMENT)
    start = begun.start_in(memory)
    content = memory[start : start + length].data
    content[: len(prefix)] = prefix
    return Incoming(content, len(prefix), landing or begun.messages)


async def start(
    receive: Receive,
    landing: Landing | None,
    codec: Codec,
    length: int | None,
    limit: int,
    lease: Lease,
) -> Incoming:
    """``begin``, and ``whole`` of it; what is small, as it comes."""
    if landing is None and length is not None and length <= UNPLACED:
        messages, content = _Messages(receive, length, limit), bytearray()
        while messages.more:
            content += await messages.next()
        return Incoming(memoryview(content), length, messages)
    return await whole(await begin(receive, codec, length, limit), landing, limit, lease)


class _Messages:
    """The body in ASGI's messages, which any server gives."""

    def __init__(self, receive: Receive, length: int | None, limit: int) -> None:
        self.more = True
        self._receive = receive
        self._length = length
        self._limit = limit
        self._came = 0
        self._rest = memoryview(b"")

    async def next(self) -> bytes:
        """The next message's bytes, which may be none."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk: bytes = message.get("body", b"")
        self.more = message.get("more_body", False)
        self._came += len(chunk)
        if self._length is not None and self._came > self._length:
            raise DecodeError(f"more than the {self._length:,} bytes declared", where="body")
        if self._came > self._limit:
            raise TooLarge(_over(self._limit), where="body")
        if self._length is not None and self._came < self._length and not self.more:
            raise DecodeError(
                f"{self._came:,} bytes, but {self._length:,} were declared", where="body"
            )
        return chunk

    async def receive_into(self, destination: memoryview, progress: Callable[[int], None]) -> None:
        """As ``Landing.receive_into``, by copying."""
        filled = 0
        while filled < len(destination):
            chunk = self._rest or memoryview(await self.next())
            piece = chunk[: len(destination) - filled]
            self._rest = chunk[len(piece) :]
            destination[filled : filled + len(piece)] = piece
            filled += len(piece)
            progress(filled)

    async def end(self) -> None:
        """Return once the body has ended."""
        while self.more:
            await self.next()


async def _prefix(messages: _Messages, codec: Codec) -> tuple[bytearray, int]:
    """The first bytes of a body, and where they say that its first tensor starts, or 0."""
    prefix = bytearray()
    tensor_at: int | None = None
    ask_at = 0
    # Up to there, since what precedes the first tensor says where the others are.
    while messages.more and len(prefix) < min(_PREFIX, tensor_at or _PREFIX):
        prefix += await messages.next()
        # Asked again only of twice as much, since each time it may be read from its start.
        if tensor_at is None and (len(prefix) >= ask_at or not messages.more):
            tensor_at = codec.first_tensor_at(bytes(prefix))
            ask_at = 2 * len(prefix)
    return prefix, tensor_at or 0


async def _grown(begun: Begun, limit: int, lease: Lease) -> Incoming:
    """A body of unknown length, in memory of its own that doubles, and is leased as it is filled.

    Pages that nothing is written to are none: so it never leases what it does not come to.
    """
    messages, prefix = begun.messages, begun.prefix
    start = -begun.tensor_at % ALIGNMENT
    filled = len(prefix)
    capacity = leased = min(2 * max(filled, _PREFIX), limit)
    lease.expect_more()
    await lease.grow(leased)
    memory = _mapped(start + capacity)
    memory[start : start + filled] = prefix
    while messages.more:
        chunk = await messages.next()
        end = filled + len(chunk)
        if end > leased:
            more = min(max(end, leased + min(leased, _LEASED)), limit) - leased
            await lease.grow(more)
            leased += more
        if end > capacity:
            capacity = min(max(end, 2 * capacity), limit)
            memory = _resized(memory, start + capacity)
        memory[start + filled : start + end] = chunk
        filled = end
    return Incoming(memoryview(memory)[start : start + filled], filled, messages)


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
