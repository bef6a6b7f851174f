"""Receives a request's body into one buffer, placed so that its first tensor is 64-byte aligned."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from service.codecs import Codec, DecodeError, TooLarge
from service.errors import Disconnected

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
_SMALLEST = 2**16  # bytes that a body of unknown length is given room for at first
_LENGTH = re.compile(r"[0-9]{1,20}")


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


async def receive(receive: Receive, codec: Codec, length: int | None, limit: int) -> memoryview:
    """The whole body, writable: of ``length`` bytes, or chunked and of at most ``limit``.

    Memory is taken for what was declared before it comes, but the system gives pages only to what
    is written: a client that lies about its length costs address space. Raises ``DecodeError``
    where more or less than ``length`` comes, ``TooLarge`` above ``limit``, and ``Disconnected``
    where the client goes away.
    """
    buffer: _Bytes | None = None
    tensor_at = 0
    filled = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        if not chunk:
            continue
        end = filled + len(chunk)
        if length is not None and end > length:
            raise DecodeError(f"more than the {length:,} bytes that were declared", where="body")
        if end > limit:
            raise TooLarge(_over(limit), where="body")
        if buffer is None:
            tensor_at = codec.first_tensor_at(chunk) or 0
            buffer = _placed(length or max(end, min(_SMALLEST, limit)), tensor_at)
        elif end > buffer.size:
            larger = _placed(min(max(end, 2 * buffer.size), limit), tensor_at)
            larger[:filled] = buffer[:filled]
            buffer = larger
        buffer[filled:end] = np.frombuffer(chunk, np.uint8)
        filled = end
    if length is not None and filled < length:
        raise DecodeError(f"{filled:,} bytes, but {length:,} were declared", where="body")
    return memoryview(b"") if buffer is None else buffer.data[:filled]


def _placed(size: int, tensor_at: int) -> _Bytes:
    """``size`` bytes that lie such that the one at ``tensor_at`` is aligned."""
    memory: _Bytes = np.empty(size + _ALIGNMENT, np.uint8)
    start = -(memory.ctypes.data + tensor_at) % _ALIGNMENT
    return memory[start : start + size]


def _over(limit: int) -> str:
    return f"the body may hold at most {limit:,} bytes"
