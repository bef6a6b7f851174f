"""Content codings of a whole body: gzip and deflate, inflated into bounded memory.

RFC 9110, section 8.4.1: "deflate" is the zlib format (RFC 1950), "gzip" is RFC 1952.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter

import numpy as np

from service.codecs.base import TakesLong
from service.errors import DecodeError, TooLarge

# zlib's ``wbits`` of each: the window, plus 16 for the header of gzip.
_WINDOW = {"gzip": zlib.MAX_WBITS + 16, "deflate": zlib.MAX_WBITS}
CODINGS = tuple(_WINDOW)

_STEP = 1 << 16  # bytes inflated at a time: they stay in cache until they are copied
_FASTEST = 1  # level: floats shrink by a tenth at any, and at this one several times as fast


def beginning(body: memoryview, coding: str, size: int, until: float = math.inf) -> bytes:
    """Return the first ``size`` bytes of ``body`` without its coding, or all if it has fewer.

    Raises ``DecodeError`` unless they are the beginning of a stream, ``TakesLong`` after ``until``.
    """
    begun = b""
    for piece in _pieces(body, coding, until, size):
        begun += piece
        if len(begun) >= size:
            break
    return begun[:size]


def measured(body: memoryview, coding: str, limit: int, until: float = math.inf) -> tuple[int, int]:
    """Return how many bytes ``body`` is without its coding, and how many of these are commas.

    It is inflated for that and dropped, since nothing else says what a stream holds, and memory is
    leased before it is used. Raises as ``inflate``, and ``TooLarge`` above ``limit``.
    """
    size = commas = 0
    for piece in _pieces(body, coding, until):
        size += len(piece)
        commas += piece.count(b",")
        if size > limit:
            raise too_large(f"more than {limit:,}", len(body), coding, limit)
    return size, commas


def inflate(body: memoryview, coding: str, size: int, until: float = math.inf) -> memoryview:
    """Return ``body`` without its coding, in new, writable memory of ``size`` bytes at most.

    Pages that are not filled take no memory. Raises ``DecodeError`` unless ``body`` is exactly
    one stream, of no more bytes, and ``TakesLong`` after ``until``.
    """
    try:
        return joined(_pieces(body, coding, until), size)
    except OverflowError:
        raise DecodeError(
            f"the body holds more than the {size:,} bytes that its JSON tells of, once its "
            f"{coding} coding is undone",
            where="body",
        ) from None


def joined(
    parts: Iterable[bytes], size: int, look: Callable[[memoryview], None] = lambda begun: None
) -> memoryview:
    """Return ``parts`` one after the other in new memory; ``look`` sees what each one completes.

    Raises ``OverflowError`` before more than ``size`` bytes.
    """
    out = np.empty(size, np.uint8).data
    filled = 0
    for part in parts:
        end = filled + len(part)
        if end > size:
            raise OverflowError
        out[filled:end] = part
        filled = end
        look(out[:filled])
    return out[:filled]


def too_large(what: str, length: int, coding: str, limit: int) -> TooLarge:
    """Return the refusal of a body of ``length`` bytes that takes ``what`` bytes inflated."""
    return TooLarge(
        f"the body takes {what} bytes once its {coding} coding is undone, and of one of {length:,}"
        f" bytes at most {limit:,} are read: send it without Content-Encoding",
        where="body",
    )


def deflate(parts: Iterable[bytes | memoryview], coding: str) -> bytes:
    """Return ``parts`` one after the other as one stream of ``coding``."""
    stream = zlib.compressobj(_FASTEST, wbits=_WINDOW[coding])
    return b"".join([*map(stream.compress, parts), stream.flush()])


def _pieces(body: memoryview, coding: str, until: float, step: int = _STEP) -> Iterator[bytes]:
    try:
        yield from pieces(body, _WINDOW[coding], until, min(step, _STEP))
    except (zlib.error, EOFError):
        raise DecodeError(
            f"the body is not exactly one {coding} stream, as Content-Encoding says it is",
            where="content-encoding",
        ) from None


def pieces(body: memoryview, window: int, until: float, step: int) -> Iterator[bytes]:
    """Inflate ``body`` in pieces of at most ``step`` bytes; ``window`` is zlib's ``wbits``.

    Raises ``zlib.error`` if it is damaged, ``EOFError`` unless it is exactly one stream, and
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
