"""Content of a zip archive's member, whose own header must agree with the central directory."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable

from service.codecs.compression import joined, pieces
from service.codecs.zip.reader import DEFLATED, FULL32, LOCAL, NEWEST, STREAMED, Member, zip64
from service.errors import DecodeError

_STEP = 1 << 18  # bytes inflated at a time: large enough to be fast, small beside a member
_LOOKED_AT = 1 << 16  # bytes of a member that hold the header of any .npy file


def content(
    body: memoryview,
    member: Member,
    look: Callable[[bytes], None] = lambda begun: None,
    until: float = math.inf,
) -> memoryview:
    """Return the member's bytes: a view of ``body`` if stored, a new buffer if deflated.

    Of a deflated one ``look`` is given the beginning, and may raise, before the rest is inflated.
    Raises ``DecodeError`` unless the member fills its place, its own header agrees, and its CRC-32
    is right, and ``TakesLong`` after ``until``.
    """
    data = _stored(body, member)
    if member.method == DEFLATED:
        data = _inflated(data, member, look, until)
    if zlib.crc32(data) != member.crc:
        raise DecodeError(f"{member.name} is damaged: its CRC-32 is wrong", where=member.name)
    return data


def _stored(body: memoryview, member: Member) -> memoryview:
    place = f"byte {member.start}"
    name_at = member.start + LOCAL.size
    fields = LOCAL.unpack_from(body, member.start) if name_at <= member.end else (b"",) * 9
    signature, needed, flags, method, crc, *narrow, name_length, extra_length = fields
    if signature != b"PK\3\4":
        raise DecodeError(f"{member.name}: its header is not where it must be", where=place)
    extra_at = name_at + name_length
    data_at = extra_at + extra_length
    data_end = data_at + member.stored
    if data_end > member.end:
        raise DecodeError(f"{member.name} runs into what follows it", where=place)
    wide = zip64(body[extra_at:data_at], member.name)
    # zipfile before Python 3.11.4 wrote both; a writer to a stream knows neither beforehand.
    sizes = (member.size, member.stored)
    unknown = {0} if flags & STREAMED else set()
    may_be = {FULL32} | unknown if wide else unknown
    if (
        (flags, method) != (member.flags, member.method)
        or needed > NEWEST
        or bytes(body[name_at:extra_at]) != member.name.encode("latin-1")
        or crc not in {member.crc} | unknown
        or any(n not in {s} | may_be for n, s in zip(narrow, sizes[::-1], strict=True))
        or (wide and len(wide) != len(sizes))
        or any(w not in {s} | unknown for w, s in zip(wide, sizes, strict=False))
    ):
        raise DecodeError(
            f"{member.name}: its own header and the central directory contradict each other",
            where=place,
        )
    if not _is_trailer(body[data_end : member.end], member):
        raise DecodeError(
            f"{member.name} is followed by bytes that belong to nothing", where=f"byte {data_end}"
        )
    return body[data_at:data_end]


def _is_trailer(gap: memoryview, member: Member) -> bool:
    """Return whether ``gap`` may follow the data: nothing, or of a stream the CRC and the sizes.

    Sizes take 4 or 8 bytes each; a signature may precede the CRC.
    """
    if not member.flags & STREAMED:
        return not gap
    values = (member.crc, member.stored, member.size)
    wide = len(gap) >= 20
    if max(values) > FULL32 and not wide:
        return False
    trailer = struct.pack("<LQQ" if wide else "<LLL", *values)
    return bytes(gap[:25]) in (b"PK\7\10" + trailer, trailer)


def _inflated(
    data: memoryview, member: Member, look: Callable[[bytes], None], until: float
) -> memoryview:
    """Inflate ``data`` into one new buffer of the member's size, which it must fill exactly."""
    seen = False

    def look_once(begun: memoryview) -> None:
        nonlocal seen
        if not seen and _LOOKED_AT <= len(begun) < member.size:
            look(bytes(begun))
            seen = True

    try:
        out = joined(pieces(data, -zlib.MAX_WBITS, until, _STEP), member.size, look_once)
        if len(out) < member.size:
            raise EOFError
    except zlib.error:
        raise DecodeError(
            f"{member.name} is damaged: it cannot be inflated", where=member.name
        ) from None
    except (EOFError, OverflowError):
        raise DecodeError(
            f"{member.name} does not inflate to exactly the {member.size:,} bytes it declares",
            where=member.name,
        ) from None
    return out
