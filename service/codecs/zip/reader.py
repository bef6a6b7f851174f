"""Strict reader of a zip archive's directory, in memory.

The format: APPNOTE.TXT 6.3.10 (PKWARE), as far as Python's zipfile writes it. An archive must be
members from the first byte on, the central directory, and its end, without gaps: no two readers
find different members in it. Names are compared, never used as paths.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace

from service.codecs.base import justified, shown
from service.errors import DecodeError, TooLarge

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED

# A member's own header, up to its name and extra fields; and its entry in the central directory.
# Times, attributes and the writer's version are skipped.
LOCAL = struct.Struct("<4s3H4x3L2H")
_CENTRAL = struct.Struct("<4s2x3H4x3L4H6xL")

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF

# Version 4.5 of the format, for zip64: the newest that NumPy needs.
NEWEST = 45

# Flags: sizes come after the data; names are UTF-8; how hard deflate was told to try.
STREAMED, _UTF8, _EFFORT = 0x0008, 0x0800, 0x0006
_FLAGS = {STORED: STREAMED | _UTF8, DEFLATED: STREAMED | _UTF8 | _EFFORT}
_ENCRYPTED = 0x0001

# Extra fields without effect on the content: NTFS and Unix times, Unix owners, alignment.
_ZIP64, ALIGNMENT_FIELD = 0x0001, 0xD935
_HARMLESS = {0x000A, 0x5455, 0x7875, ALIGNMENT_FIELD}

# Bytes that deflate makes of one at most: a match of 258 bytes in 2 bits.
_MOST_PER_BYTE = 1032

# Most members of an archive, and extra fields of a member: many times what any has.
_MOST_MEMBERS, _MOST_FIELDS = 64, 16


@dataclass(frozen=True, slots=True)
class Member:
    """Member of an archive, as its entry in the central directory says.

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


def members(body: memoryview, check: Callable[[str], None], own: bool = False) -> list[Member]:
    """Return the members of the archive ``body`` in their order; nothing is decompressed.

    ``check(name)`` raises for a name that is not wanted. Raises ``DecodeError``, and ``TooLarge``
    if they inflate to more than the body justifies, unless it is the user's ``own``.
    """
    directory, end, count = _directory(body)
    found: dict[str, Member] = {}
    at, inflated, most = directory, 0, justified(len(body))
    for _ in range(count):
        if len(found) == _MOST_MEMBERS and not own:
            raise DecodeError(
                f"the archive has {count:,} members, and at most {_MOST_MEMBERS} are read",
                where=f"byte {at}",
            )
        member, at = _entry(body, at, end)
        inflated += member.size if member.method == DEFLATED else 0
        if inflated > most and not own:
            raise TooLarge(
                f"the archive's members inflate to {inflated:,} bytes or more, and of one of "
                f"{len(body):,} bytes at most {most:,} are read: write it with numpy.savez",
                where=shown(member.name),
            )
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


def _directory(body: memoryview) -> tuple[int, int, int]:
    """Return (start, end, entries) of the central directory, which the archive's end follows."""
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
        full = (_FULL16, _FULL16, FULL32, FULL32)
        if (
            locator[1:] != (0, at, 1)
            or (signature, length, *disks64) != (b"PK\6\6", _END64.size - 12, 0, 0)
            or needed > NEWEST
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
    """Return the member of the entry at ``at``, without its ``end``, and the next entry's place."""
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
    wide = zip64(body[extra_at:extra_end], where)
    if len(wide) != [size, stored, start].count(FULL32) or comment or disk:
        raise DecodeError(
            f"{where}: its entry must have the zip64 sizes it needs, no comment, and one disk",
            where=f"byte {at}",
        )
    values = iter(wide)
    size, stored, start = (
        next(values) if value == FULL32 else value for value in (size, stored, start)
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
    if method not in _FLAGS or flags & ~_FLAGS[method] or needed > NEWEST:
        raise DecodeError(
            f"{where}: method {method}, flags {flags:#06x}, version {needed} is not read: write "
            "the archive with numpy.savez or numpy.savez_compressed",
            where=where,
        )


def zip64(extra: memoryview, where: str) -> tuple[int, ...]:
    """Return the values of the zip64 field among ``extra`` fields, which must all be known."""
    values: tuple[int, ...] | None = None
    at = fields = 0
    while at < len(extra):
        fields += 1
        kind = int.from_bytes(extra[at : at + 2], "little")
        length = int.from_bytes(extra[at + 2 : at + 4], "little")
        at += 4 + length
        wide = kind == _ZIP64 and values is None and length % 8 == 0
        if at > len(extra) or fields > _MOST_FIELDS or not (wide or kind in _HARMLESS):
            raise DecodeError(
                f"{where}: its extra field {kind:#06x} is broken, repeated or not read: write the "
                "archive with numpy.savez",
                where=where,
            )
        if wide:
            values = struct.unpack(f"<{length // 8}Q", extra[at - length : at])
    return values or ()
