"""Content codings of a whole body: gzip and deflate, inflated into memory of bounded size.

RFC 9110, section 8.4.1: "deflate" is the zlib format (RFC 1950), "gzip" is RFC 1952.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from service.codecs.base import DecodeError, TooLarge

# What zlib takes for each: the window, and by how much the kind of header is encoded in it.
_WINDOW = {"gzip": zlib.MAX_WBITS + 16, "deflate": zlib.MAX_WBITS}
CODINGS = tuple(_WINDOW)

_STEP = 1 << 16  # bytes inflated at a time: they stay in cache until they are put in their place
_FASTEST = 1  # floats shrink by a tenth at any level, and at this one several times as fast


def measured(body: memoryview, coding: str, limit: int) -> tuple[int, int]:
    """How many bytes ``body`` is without its coding, and how many of these are commas.

    It is inflated for that, and forgotten again: what a stream holds nothing else says, and memory
    is to be granted before it is taken. Raises as ``inflate``, and ``TooLarge`` above ``limit``.
    """
    size = commas = 0
    for piece in _pieces(body, coding):
        size += len(piece)
        commas += piece.count(b",")
        if size > limit:
            raise TooLarge(
                f"the body takes more than {limit:,} bytes once its {coding} coding is undone",
                where="body",
            )
    return size, commas


def inflate(body: memoryview, coding: str, size: int) -> memoryview:
    """``body`` without its coding, in new, writable memory of the ``size`` that was measured.

    Raises ``DecodeError`` unless it is exactly one stream.
    """
    out = np.empty(size, np.uint8).data
    filled = 0
    for piece in _pieces(body, coding):
        out[filled : filled + len(piece)] = piece
        filled += len(piece)
    return out


def deflate(parts: Iterable[bytes | memoryview], coding: str) -> bytes:
    """``parts``, one after the other, in the coding, made as fast as zlib can."""
    stream = zlib.compressobj(_FASTEST, wbits=_WINDOW[coding])
    return b"".join([*map(stream.compress, parts), stream.flush()])


def _pieces(body: memoryview, coding: str) -> Iterator[bytes]:
    stream = zlib.decompressobj(_WINDOW[coding])
    taken = 0
    while not stream.eof:
        piece = stream.unconsumed_tail
        if not piece:
            piece = bytes(body[taken : taken + _STEP])
            taken += len(piece)
        try:
            part = stream.decompress(piece, _STEP)
        except zlib.error:
            raise _broken(coding) from None
        if not piece and not part:
            raise _broken(coding)
        yield part
    if stream.unused_data or taken != len(body):
        raise _broken(coding)


def _broken(coding: str) -> DecodeError:
    return DecodeError(
        f"the body is not exactly one {coding} stream, as Content-Encoding says it is",
        where="content-encoding",
    )
