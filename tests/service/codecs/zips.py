"""Writes zip archives that say whatever a test wants them to: every field can be given a lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_LOCAL = (
    "signature:4s version:H flags:H method:H time:H date:H crc:L stored:L size:L name:H extra:H"
)
_CENTRAL = (
    "signature:4s made_by:H version:H flags:H method:H time:H date:H crc:L stored:L size:L name:H "
    "extra:H comment:H disk:H internal:H external:L start:L"
)
_END = "signature:4s disk:H directory_disk:H here:H count:H size:L start:L comment:H"
_END64 = (
    "signature:4s length:Q made_by:H version:H disk:L directory_disk:L here:Q count:Q size:Q "
    "start:Q"
)
_LOCATOR = "signature:4s disk:L start:Q disks:L"

Lies = Mapping[str, int | bytes]


@dataclass
class Part:
    """A member: ``data`` under ``name``, and what its headers say instead of the truth."""

    name: str
    data: bytes
    method: int = 0
    flags: int = 0
    body: bytes | None = None
    trailer: bytes = b""
    local_extra: bytes = b""
    central_extra: bytes = b""
    local: Lies = field(default_factory=dict)
    central: Lies = field(default_factory=dict)

    @property
    def stored(self) -> bytes:
        """``data`` as it is in the archive: deflated where the method says so."""
        if self.body is not None:
            return self.body
        if self.method != 8:
            return self.data
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflate.compress(self.data) + deflate.flush()


def archive(
    parts: Sequence[Part],
    *,
    before: bytes = b"",
    between: bytes = b"",
    end: Lies | None = None,
    end64: Lies | None = None,
    locator: Lies | None = None,
) -> bytes:
    """The archive of ``parts``; with ``end64`` or ``locator`` it has zip64's end as well."""
    body = before
    directory = b""
    for part in parts:
        truth: dict[str, int | bytes] = {
            "version": 45,
            "flags": part.flags,
            "method": part.method,
            "date": 33,
            "crc": zlib.crc32(part.data),
            "stored": len(part.stored),
            "size": len(part.data),
            "name": len(part.name.encode()),
        }
        central = {**truth, "start": len(body), "extra": len(part.central_extra)}
        directory += _packed(_CENTRAL, {"signature": b"PK\1\2", **central, **part.central})
        directory += part.name.encode() + part.central_extra
        local = {**truth, "extra": len(part.local_extra)}
        body += _packed(_LOCAL, {"signature": b"PK\3\4", **local, **part.local})
        body += part.name.encode() + part.local_extra + part.stored + part.trailer
    counts = {"here": len(parts), "count": len(parts), "size": len(directory)}
    truth = {**counts, "start": len(body) + len(between)}
    body += between + directory
    if end64 is not None or locator is not None:
        at = len(body)
        wide = {"signature": b"PK\6\6", "length": 44, "version": 45, **truth, **(end64 or {})}
        place = {"signature": b"PK\6\7", "start": at, "disks": 1, **(locator or {})}
        body += _packed(_END64, wide) + _packed(_LOCATOR, place)
    return body + _packed(_END, {"signature": b"PK\5\6", **truth, **(end or {})})


def zip64(*values: int) -> bytes:
    """A zip64 extra field of ``values``."""
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


def descriptor(part: Part, layout: str, signature: bytes) -> bytes:
    """Data descriptor of a streamed member: its CRC, and its sizes in 4 ("L") or 8 ("Q") bytes."""
    values = (zlib.crc32(part.data), len(part.stored), len(part.data))
    return signature + struct.pack(f"<L{layout}{layout}", *values)


def _packed(layout: str, values: Lies) -> bytes:
    fields = [item.split(":") for item in layout.split()]
    codes = "<" + "".join(code for _, code in fields)
    return struct.pack(codes, *(values.get(name, 0) for name, _ in fields))
