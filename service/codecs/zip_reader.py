"""A strict reader of zip archives in memory: what a member is, is said twice, and must agree.

The format: APPNOTE.TXT 6.3.10 (PKWARE), as far as Python's zipfile writes it. What is read is one
run of members from the first byte on, the central directory, and its end, with nothing between
them: two readers cannot find different members in it. Names are compared, never used as paths.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from service.codecs.base import DecodeError, shown

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED

# A member's own header, up to its name and extra fields; and its entry in the central directory.
# Times, attributes and the writer's version are skipped.
LOCAL = struct.Struct("<4s3H4x3L2H")
_CENTRAL = struct.Struct("<4s2x3H4x3L4H6xL")

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF

# Version 4.5 of the format brought zip64, the newest thing that NumPy asks for.
_NEWEST = 45

# Flags: sizes come after the data; names are UTF-8; how hard deflate was told to try.
_STREAMED, _UTF8, _EFFORT = 0x0008, 0x0800, 0x0006
_FLAGS = {STORED: _STREAMED | _UTF8, DEFLATED: _STREAMED | _UTF8 | _EFFORT}
_ENCRYPTED = 0x0001

# Extra fields that do not change what a member is: NTFS and Unix times, Unix owners, alignment.
_ZIP64, ALIGNMENT_FIELD = 0x0001, 0xD935
_HARMLESS = {0x000A, 0x5455, 0x7875, ALIGNMENT_FIELD}

# Deflate's best: a match of 258 bytes in 2 bits.
_MOST_PER_BYTE = 1032

# Large enough to be fast, small enough to be no allocation to speak of.
_STEP_IN, _STEP_OUT = 1 << 16, 1 << 18


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive, as the central directory has it.

    Its own header is at byte ``start`` of the body; what follows it begins at ``end``. ``size``
    bytes, with the CRC-32 ``crc``, take ``stored`` bytes there.
    """

    name: str
    flags: int
    method: int
    crc: int
    stored: int
    size: int
    start: int
    end: int


def members(body: memoryview, check: Callable[[str], None]) -> list[Member]:
    """The members of the archive ``body``, in their order; nothing is decompressed.

    ``check(name)`` raises for a name that is not wanted. Raises ``DecodeError``.
    """
    directory, end, count = _directory(body)
    found: dict[str, Member] = {}
    at = directory
    for _ in range(count):
        member, at = _entry(body, at, end)
        check(member.name)
        if member.name in found:
            raise DecodeError(f"the archive has {member.name} twice", where=member.name)
        found[member.name] = member
    if at != end:
        raise DecodeError("bytes in the central directory belong to no entry", where=f"byte {at}")
    starts = [*(member.start for member in found.values()), directory]
    if starts[0] != 0 or starts != sorted(starts):
        raise DecodeError(
            f"the members must follow each other from the first byte on, not start at {starts}",
            where=f"byte {directory}",
        )
    return [
        replace(member, end=following)
        for member, following in zip(found.values(), starts[1:], strict=True)
    ]


def content(body: memoryview, member: Member) -> memoryview:
    """The member's bytes: a view of ``body`` if it is stored, a new buffer if it is deflated.

    Raises ``DecodeError`` unless the member fills its place, its own header agrees, and its
    CRC-32 is right.
    """
    data = _stored(body, member)
    if member.method == DEFLATED:
        data = _inflated(data, member)
    if zlib.crc32(data) != member.crc:
        raise DecodeError(f"{member.name} is damaged: its CRC-32 is wrong", where=member.name)
    return data


def _directory(body: memoryview) -> tuple[int, int, int]:
    """(start, end, entries) of the central directory; only the archive's end may follow it."""
    end = max(0, len(body) - _END.size)
    where = f"byte {end}"
    ending = bytes(body[end:]).rjust(_END.size, b"\0")
    signature, *disks, here, count, size, start, comment = _END.unpack(ending)
    if signature != b"PK\5\6":
        raise DecodeError(
            "the body does not end as a zip archive does that has no comment: it is cut short, "
            "has bytes after its end, or is not what numpy.savez writes",
            where=where,
        )
    at = end - _END64.size - _LOCATOR64.size
    if at >= 0 and bytes(body[end - _LOCATOR64.size : end]).startswith(b"PK\6\7"):
        narrow = (here, count, size, start)
        locator = _LOCATOR64.unpack_from(body, end - _LOCATOR64.size)
        signature, length, _, needed, *disks64, here, count, size, start = _END64.unpack_from(
            body, at
        )
        wide = (here, count, size, start)
        full = (_FULL16, _FULL16, _FULL32, _FULL32)
        if (
            locator[1:] != (0, at, 1)
            or (signature, length, *disks64) != (b"PK\6\6", _END64.size - 12, 0, 0)
            or needed > _NEWEST
            or any(n not in (w, f) for n, w, f in zip(narrow, wide, full, strict=True))
        ):
            raise DecodeError("the two ends of the archive contradict each other", where=where)
        end = at
    if any(disks) or comment or here != count or start + size != end:
        raise DecodeError(
            "the archive's end must tell of one disk, no comment, and a central directory just "
            f"before it, not of {count} entries in {size} bytes from byte {start}",
            where=where,
        )
    return start, end, count


def _entry(body: memoryview, at: int, end: int) -> tuple[Member, int]:
    """The member of the entry at ``at``, but for its ``end``, and where the next entry is."""
    name_at = at + _CENTRAL.size
    fields = _CENTRAL.unpack_from(body, at) if name_at <= end else (b"",) * 13
    signature, needed, flags, method, crc, stored, size, *lengths, comment, disk, start = fields
    if signature != b"PK\1\2":
        raise DecodeError("the central directory has too few entries", where=f"byte {at}")
    extra_at = name_at + lengths[0]
    extra_end = extra_at + lengths[1]
    if extra_end > end:
        raise DecodeError("the central directory is cut short", where=f"byte {at}")
    name = bytes(body[name_at:extra_at]).decode("latin-1")
    where = shown(name)
    _check_method(where, needed, flags, method)
    wide = _zip64(body[extra_at:extra_end], where)
    if len(wide) != [size, stored, start].count(_FULL32) or comment or disk:
        raise DecodeError(
            f"{where}: its entry must have the zip64 sizes it needs, no comment, and one disk",
            where=f"byte {at}",
        )
    values = iter(wide)
    size, stored, start = (
        next(values) if value == _FULL32 else value for value in (size, stored, start)
    )
    # Before anything is allocated for it.
    if size != stored if method == STORED else size > stored * _MOST_PER_BYTE:
        raise DecodeError(
            f"{where}: {stored:,} bytes in the archive cannot be the {size:,} bytes it declares",
            where=f"byte {at}",
        )
    return Member(name, flags, method, crc, stored, size, start, end=0), extra_end


def _check_method(where: str, needed: int, flags: int, method: int) -> None:
    if flags & _ENCRYPTED:
        raise DecodeError(f"{where} is encrypted, which is not read", where=where)
    if method not in _FLAGS or flags & ~_FLAGS[method] or needed > _NEWEST:
        raise DecodeError(
            f"{where}: method {method}, flags {flags:#06x}, version {needed} is not read: write "
            "the archive with numpy.savez or numpy.savez_compressed",
            where=where,
        )


def _zip64(extra: memoryview, where: str) -> tuple[int, ...]:
    """The values of the zip64 field among ``extra`` fields, which must all be known."""
    values: tuple[int, ...] | None = None
    at = 0
    while at < len(extra):
        kind = int.from_bytes(extra[at : at + 2], "little")
        length = int.from_bytes(extra[at + 2 : at + 4], "little")
        at += 4 + length
        wide = kind == _ZIP64 and values is None and length % 8 == 0
        if at > len(extra) or not (wide or kind in _HARMLESS):
            raise DecodeError(
                f"{where}: its extra field {kind:#06x} is broken, repeated or not read: write the "
                "archive with numpy.savez",
                where=where,
            )
        if wide:
            values = struct.unpack(f"<{length // 8}Q", extra[at - length : at])
    return values or ()


def _stored(body: memoryview, member: Member) -> memoryview:
    """The member's bytes as they are in the archive, between its own header and what follows."""
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
    wide = _zip64(body[extra_at:data_at], member.name)
    # Before Python 3.11.4 zipfile wrote both; a writer to a stream knows neither beforehand.
    sizes = (member.size, member.stored)
    unknown = {0} if flags & _STREAMED else set()
    may_be = {_FULL32} | unknown if wide else unknown
    if (
        (flags, method) != (member.flags, member.method)
        or needed > _NEWEST
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
    """Whether ``gap`` is what may follow the data: nothing, or of a stream the CRC and the sizes.

    Those come in 4 or 8 bytes each, with a signature or without one.
    """
    if not member.flags & _STREAMED:
        return not gap
    values = (member.crc, member.stored, member.size)
    wide = len(gap) >= 20
    if max(values) > _FULL32 and not wide:
        return False
    trailer = struct.pack("<LQQ" if wide else "<LLL", *values)
    return bytes(gap[:25]) in (b"PK\7\10" + trailer, trailer)


def _inflated(data: memoryview, member: Member) -> memoryview:
    """``data`` inflated into one new buffer of the member's size, which it must fill exactly."""
    out = np.empty(member.size, np.uint8).data
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    taken = filled = 0
    try:
        while not stream.eof and filled <= member.size:
            piece = stream.unconsumed_tail or bytes(data[taken : taken + _STEP_IN])
            if not stream.unconsumed_tail:
                taken += len(piece)
            # Never 0, which means "no limit": a stream that is too long shows itself by one byte.
            part = stream.decompress(piece, min(_STEP_OUT, member.size - filled + 1))
            if not piece and not part:
                break
            out[filled : filled + len(part)] = part[: member.size - filled]
            filled += len(part)
    except zlib.error:
        raise DecodeError(
            f"{member.name} is damaged: it cannot be inflated", where=member.name
        ) from None
    if not stream.eof or filled != member.size or taken != len(data) or stream.unused_data:
        raise DecodeError(
            f"{member.name} does not inflate to exactly the {member.size:,} bytes it declares",
            where=member.name,
        )
    return out
