"""Format .npz: a zip archive of .npy files, as numpy.savez and savez_compressed write it.

Stored members are views of the body. Each member's CRC-32 is checked, at 2.3 GB/s as long as
receiving the bytes over loopback takes: nothing else tells a damaged file from numbers, and
numpy.load checks it too. Safetensors has no checksum, and is the format for speed.
"""

from __future__ import annotations

import io
import struct
import zipfile
from contextlib import suppress
from functools import partial

from service.codecs import npy
from service.codecs.base import (
    Arrays,
    Codec,
    Limits,
    Message,
    check_name,
    flat_bytes,
    row_of,
    shown,
)
from service.codecs.zip import content as zip_content
from service.codecs.zip import reader as zip_reader
from service.errors import DecodeError, TooLarge
from service.regimes import AT_ONCE_NPZ_BYTES

_SUFFIX = ".npy"

# Bytes of the zip64 field that zipfile writes into a member's own header, and of the start of ours.
_ZIP64_BYTES = 20
_ALIGNMENT_BYTES = 6


class Npz(Codec):
    """Zip archive of .npy files. The format has no options."""

    name = "npz"
    media_types = ("application/x-npz", "application/zip")

    def decode(self, body: memoryview, names: frozenset[str], limits: Limits) -> Message:
        """Decode the arrays: views of ``body`` if stored, of a new buffer if deflated.

        The sizes of all members, .npy headers included, are held to ``limits`` before any is
        inflated. Raises ``DecodeError``, ``TooLarge`` and ``TakesLong``.
        """

        def is_other(name: str) -> bool:
            return limits.own and name.removesuffix(_SUFFIX) not in names

        def check(name: str) -> None:
            if is_other(name):
                return
            if not name.endswith(_SUFFIX):
                raise DecodeError(
                    f"the archive's member {shown(name)} is no {_SUFFIX} file", where=shown(name)
                )
            check_name(name.removesuffix(_SUFFIX), names)

        found = zip_reader.members(body, check, limits.own)
        members = [member for member in found if not is_other(member.name)]
        total = sum(member.size for member in members)
        if total > limits.decoded_bytes:
            raise TooLarge(
                f"the archive's members hold {total:,} bytes, more than the limit of "
                f"{limits.decoded_bytes:,}"
            )
        tensors = {}
        for member in members:
            name, where = member.name.removesuffix(_SUFFIX), member.name
            look = partial(npy.check, size=member.size, limits=limits, where=where, name=name)
            content = zip_content.content(body, member, look, limits.until)
            tensors[name] = npy.decode(content, limits, where=where, name=name)
        others = [member.name.removesuffix(_SUFFIX) for member in found if is_other(member.name)]
        return Message(tensors, {}, tuple(others))

    def encode(self, arrays: Arrays) -> bytes:
        """Write an archive of stored members, each array's data 64-byte aligned."""
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as archive:
            for name, array in arrays.items():
                # The default date is fixed, 1980: equal arrays give equal bytes.
                info = zipfile.ZipInfo(name + _SUFFIX)
                header_bytes = zip_reader.LOCAL.size + len(info.filename.encode())
                header_bytes += _ZIP64_BYTES + _ALIGNMENT_BYTES
                padding = -(body.tell() + header_bytes) % npy.ALIGNMENT
                info.extra = struct.pack(
                    f"<3H{padding}x", zip_reader.ALIGNMENT_FIELD, 2 + padding, npy.ALIGNMENT
                )
                with archive.open(info, "w", force_zip64=True) as member:
                    member.write(npy.header(row_of(name, array), array.shape))
                    member.write(flat_bytes(array))
        return body.getvalue()

    def aligned_at(self, prefix: bytes) -> int | None:
        """Return where the first member's elements start, if it is stored.

        ``None`` as well if ``prefix`` does not hold its zip and .npy headers.
        """
        if len(prefix) < zip_reader.LOCAL.size or not prefix.startswith(b"PK\3\4"):
            return None
        *_, method, _, _, _, name_length, extra_length = zip_reader.LOCAL.unpack_from(prefix)
        member_at: int = zip_reader.LOCAL.size + name_length + extra_length
        elements_at = npy.data_start(prefix[member_at : member_at + npy.PREFIX])
        if method != zip_reader.STORED or elements_at is None:
            return None
        return member_at + elements_at

    def at_once(self, body: memoryview) -> bool:
        """Return whether the body is so small that all it may inflate to (1032 times) is too."""
        return len(body) <= AT_ONCE_NPZ_BYTES

    def decoded_bytes(self, body: memoryview) -> int:
        """Return the size of the deflated members; 0 for a body that ``decode`` refuses."""
        with suppress(DecodeError):
            members = zip_reader.members(body, lambda name: None)
            return sum(member.size for member in members if member.method == zip_reader.DEFLATED)
        return 0


CODEC = Npz()
