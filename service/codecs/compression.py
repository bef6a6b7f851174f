"""Content codings of a whole body: gzip and deflate, inflated into memory of bounded size.

RFC 9110, section 8.4.1: "deflate" is the zlib format (RFC 1950), "gzip" is RFC 1952.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from time import perf_counter

import numpy as np

from service.codecs.base import DecodeError, TakesLong, TooLarge

# What zlib takes for each: the window, and by how much the kind of header is encoded in it.
_WINDOW = {"gzip": zlib.MAX_WBITS + 16, "deflate": zlib.MAX_WBITS}
CODINGS = tuple(_WINDOW)

_STEP = 1 << 16  # bytes inflated at a time: they stay in cache until they are put in their place
_FASTEST = 1  # floats shrink by a tenth at any level, and at this one several times as fast


def beginning(body: memoryview, coding: str, size: int, until: float = math.inf) -> bytes:
    """The first ``size`` bytes of ``body`` without its coding, or all, if it has fewer.

    Raises ``DecodeError`` where it is no stream.
    """
    begun = b""
    for piece in _pieces(body, coding, until, size):
        begun += piece
        if len(begun) >= size:
            break
    return begun[:size]


def measured(body: memoryview, coding: str, limit: int, until: float = math.inf) -> tuple[int, int]:
    """How many bytes ``body`` is without its coding, and how many of these are commas.

    It is inflated for that, and forgotten again: what a stream holds nothing else says, and memory
    is to be granted before it is taken. Raises as ``inflate``, and ``TooLarge`` above ``limit``.
    """
    size = commas = 0
    for piece in _pieces(body, coding, until):
        size += len(piece)
        commas += piece.count(b",")
        if size > limit:
            raise too_large(f"more than {limit:,}", len(body), coding, limit)
    return size, commas


def inflate(body: memoryview, coding: str, size: int, until: float = math.inf) -> memoryview:
    """``body`` without its coding, in new, writable memory of at most the ``size`` that is known.

    Raises ``DecodeError`` unless it is exactly one stream of no more bytes, and ``TakesLong`` where
    it is not inflated by ``until``.
    """
    out = np.empty(size, np.uint8).data
    filled = 0
    for piece in _pieces(body, coding, until):
        end = filled + len(piece)
        if end > size:
            raise DecodeError(
                f"the body holds more than the {size:,} bytes that its JSON tells of, once its "
                f"{coding} coding is undone",
                where="body",
            )
        out[filled:end] = piece
        filled = end
    return out[:filled]


def too_large(what: str, length: int, coding: str, limit: int) -> TooLarge:
    """The refusal of a body of ``length`` bytes that would take ``what`` bytes."""
    return TooLarge(
        f"the body takes {what} bytes once its {coding} coding is undone, and of one of {length:,}"
        f" bytes at most {limit:,} are read: send it without Content-Encoding",
        where="body",
    )


def deflate(parts: Iterable[bytes | memoryview], coding: str) -> bytes:
    """``parts``, one after the other, in the coding, made as fast as zlib can."""
    stream = zlib.compressobj(_FASTEST, wbits=_WINDOW[coding])
    return b"".join([*map(stream.compress, parts), stream.flush()])


def _pieces(body: memoryview, coding: str, until: float, step: int = _STEP) -> Iterator[bytes]:
    try:
        yield from pieces(body, _WINDOW[coding], until, min(step, _STEP))
    except (zlib.error, EOFError):
        raise _broken(coding) from None


def pieces(body: memoryview, window: int, until: float, step: int) -> Iterator[bytes]:
    """The stream ``body`` inflated, in pieces of at most ``step`` bytes; ``window`` as zlib has it.

    Raises ``zlib.error`` where it is damaged, ``EOFError`` where it is not exactly one stream, and
    ``TakesLong`` after ``until``.
    """
    stream = zlib.decompressobj(window)
    step = max(step, 1)  # 0 would mean "no limit"
    taken = 0
    while not stream.eof:
        if perf_counter() > until:
            raise TakesLong
        piece = stream.unconsumed_tail
        if not piece:
            piece = bytes(body[taken : taken + _STEP])
            taken += len(piece)
        part = stream.decompress(piece, step)
        if not piece and not part:
            raise EOFError
        yield part
    if stream.unused_data or taken != len(body):
        raise EOFError


def _broken(coding: str) -> DecodeError:
    return DecodeError(
        f"the body is not exactly one {coding} stream, as Content-Encoding says it is",
        where="content-encoding",
    )
