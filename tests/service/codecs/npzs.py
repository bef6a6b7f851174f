"""npz archives that are read and that are refused, and how they are made."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from kernels import dtypes
from tests.service.codecs.samples import Array, as_numpy_saves, sample
from tests.service.codecs.zips import Part, archive, descriptor, zip64

FULL = 0xFFFFFFFF


def saved(write: Any, arrays: dict[str, Array]) -> bytes:
    file = io.BytesIO()
    write(file, **{name: as_numpy_saves(array) for name, array in arrays.items()})
    return file.getvalue()


LOGITS = sample(dtypes.FLOAT32, (2, 3))
NPY = saved(np.savez, {"logits": LOGITS})[60:][: 128 + 24]
PART = Part("logits.npy", NPY)
DEFLATED = replace(PART, method=8)
_STREAM = DEFLATED.stored
_SIZES = (len(NPY), len(NPY))


def _streamed(part: Part, layout: str, signature: bytes, known: bool) -> Part:
    """``part`` as it is written to a stream, with sizes in its header that are known or 0."""
    local = {} if known else {"crc": 0, "size": 0, "stored": 0}
    return replace(
        part, flags=part.flags | 8, trailer=descriptor(part, layout, signature), local=local
    )


_STREAMED = _streamed(PART, "L", b"PK\7\10", False)
ACCEPTED: dict[str, bytes] = {
    "plain": archive([PART]),
    "deflated": archive([DEFLATED]),
    "utf8_flag": archive([replace(PART, flags=0x0800)]),
    "deflate_effort": archive([replace(DEFLATED, flags=0x0006)]),
    "zip64_as_numpy": archive(
        [replace(PART, local={"size": FULL, "stored": FULL}, local_extra=zip64(*_SIZES))]
    ),
    "zip64_of_old_pythons": archive([replace(PART, local_extra=zip64(*_SIZES))]),
    "zip64_entry": archive(
        [
            replace(
                PART,
                central={"size": FULL, "stored": FULL, "start": FULL},
                central_extra=zip64(*_SIZES, 0),
            )
        ]
    ),
    "zip64_entry_size_only": archive(
        [replace(PART, central={"size": FULL}, central_extra=zip64(len(NPY)))]
    ),
    "zip64_end": archive([PART], end64={}),
    "zip64_end_as_zipfile": archive(
        [PART], end64={}, end={"here": 0xFFFF, "count": 0xFFFF, "size": FULL, "start": FULL}
    ),
    "times": archive(
        [replace(PART, local_extra=b"UT\5\0\3abcd", central_extra=b"UT\5\0\3abcdux\0\0")]
    ),
    "empty_blocks": archive([replace(DEFLATED, body=b"\0\0\0\xff\xff" * 10**5 + _STREAM)]),
    **{
        f"streamed_{method}_{layout}_{len(signature)}_{known}": archive(
            [_streamed(part, layout, signature, known), replace(PART, name="labels.npy")]
        )
        for method, part in (("stored", PART), ("deflated", DEFLATED))
        for layout in "LQ"
        for signature in (b"", b"PK\7\10")
        for known in (False, True)
    },
}


def central(part: Part = PART, **lies: int | bytes) -> bytes:
    return archive([replace(part, central=lies)])


def _local(part: Part = PART, **lies: int | bytes) -> bytes:
    return archive([replace(part, local=lies)])


def _end(**lies: int | bytes) -> bytes:
    return archive([PART], end=lies)


def _end64(**lies: int | bytes) -> bytes:
    return archive([PART], end64=lies)


def extra(extra: bytes) -> bytes:
    return archive([replace(PART, local_extra=extra, central_extra=extra)])


def _inflating(body: bytes, size: int = len(NPY)) -> bytes:
    """A deflated member whose bytes are ``body``, and that declares ``size`` bytes."""
    return archive([Part("logits.npy", bytes(size), method=8, body=body)])


_TWO = [PART, replace(PART, name="labels.npy")]
_END_OF_ZIP = "does not end as a zip archive"
_LOST_DIRECTORY = "a central directory just before it, not of"
_CONTRADICTION = "its own header and the central directory contradict"
_ENDS = "the two ends of the archive contradict each other"
_EXTRA = "is broken, repeated or not read"
_ENTRY = "must have the zip64 sizes it needs, no comment, and one disk"
_EXACTLY = "does not inflate to exactly the 152 bytes"
REFUSED: dict[str, tuple[bytes, str]] = {
    # the end
    "empty": (b"", _END_OF_ZIP),
    "short": (b"PK\5\6", _END_OF_ZIP),
    "trailing_byte": (archive([PART]) + b"\0", _END_OF_ZIP),
    "comment": (archive([PART], end={"comment": 3}) + b"abc", _END_OF_ZIP),
    "comment_length": (_end(comment=3), _LOST_DIRECTORY),
    "npy": (NPY, _END_OF_ZIP),
    "disk": (_end(disk=1), _LOST_DIRECTORY),
    "directory_disk": (_end(directory_disk=1), _LOST_DIRECTORY),
    "entries_on_this_disk": (_end(here=0), _LOST_DIRECTORY),
    "directory_too_early": (_end(start=0), _LOST_DIRECTORY),
    "directory_too_long": (_end(size=57), _LOST_DIRECTORY),
    "directory_saturated": (_end(start=FULL), _LOST_DIRECTORY),
    "too_few_entries": (_end(here=2, count=2), "has too few entries"),
    "too_many_entries": (_end(here=0, count=0), "belong to no entry"),
    "hole_before_the_directory": (archive([PART], between=b"\0"), "bytes that belong to nothing"),
    "only_a_hole": (archive([], before=b"\0"), "follow each other from the first byte on"),
    "prefix": (archive([PART], before=b"#!/bin/sh\n"), "from the first byte on, not start at"),
    "prefix_unadjusted": (b"\0" + archive([PART]), _LOST_DIRECTORY),
    # zip64's end
    "end64_missing": (archive([], end64={})[56:], _LOST_DIRECTORY),
    "end64_elsewhere": (archive([PART], locator={"start": 0}), _ENDS),
    "end64_on_a_disk": (archive([PART], locator={"disk": 1}), _ENDS),
    "end64_disks": (archive([PART], locator={"disks": 2}), _ENDS),
    "end64_signature": (_end64(signature=b"PK\6\5"), _ENDS),
    "end64_length": (_end64(length=45), _ENDS),
    "end64_version": (_end64(version=62), _ENDS),
    "end64_disk": (_end64(disk=1), _ENDS),
    "end64_directory_disk": (_end64(directory_disk=1), _ENDS),
    "end64_count": (_end64(count=2), _ENDS),
    "end64_here": (_end64(here=2), _ENDS),
    "end64_size": (_end64(size=57), _ENDS),
    "end64_start": (_end64(start=1), _ENDS),
    "end64_2**64": (
        archive([PART], end={"start": FULL}, end64={"start": 2**64 - 1}),
        _LOST_DIRECTORY,
    ),
    # entries
    "entry_signature": (central(signature=b"PK\1\1"), "has too few entries"),
    "entry_name_too_long": (central(name=60000), "the central directory is cut short"),
    "entry_extra_too_long": (central(extra=1), "the central directory is cut short"),
    "entry_comment": (central(comment=1), _ENTRY),
    "entry_disk": (central(disk=1), _ENTRY),
    "encrypted": (central(flags=1), "'logits.npy' is encrypted"),
    "strongly_encrypted": (central(flags=0x41), "is encrypted"),
    "patched": (central(flags=0x20), "method 0, flags 0x0020, version 45 is not read"),
    "masked_headers": (central(flags=0x2000), "flags 0x2000"),
    "effort_without_deflate": (central(flags=2), "flags 0x0002"),
    "bzip2": (central(method=12), "method 12, .* is not read: write .* numpy.savez"),
    "lzma": (central(method=14), "method 14, "),
    "deflate64": (central(method=9), "method 9, "),
    "version_46": (central(version=46), "version 46 is not read"),
    "start_too_late": (central(start=1), "from the first byte on"),
    "start_past_the_end": (central(start=FULL - 1), "from the first byte on"),
    "second_starts_past_the_end": (
        archive([PART, replace(_TWO[1], central={"start": FULL - 1})]),
        "follow each other from the first byte on",
    ),
    "stored_size": (central(size=151), "152 bytes in the archive cannot be the 151 bytes"),
    "stored_stored": (central(stored=151), "151 bytes in the archive cannot be the 152 bytes"),
    # names
    "no_npy": (archive([Part("logits", NPY)]), r"member 'logits' is no \.npy file"),
    "other_tensor": (
        archive([Part("evil.npy", NPY)]),
        "unknown tensor 'evil': the tensors here are labels, logits, weight",
    ),
    "parent": (archive([Part("../logits.npy", NPY)]), r"unknown tensor '\.\./logits'"),
    "absolute": (archive([Part("/logits.npy", NPY)]), "unknown tensor '/logits'"),
    "folder": (archive([Part("a/logits.npy", NPY)]), "unknown tensor 'a/logits'"),
    "capitals": (archive([Part("LOGITS.NPY", NPY)]), r"is no \.npy file"),
    "space": (archive([Part("logits .npy", NPY)]), "unknown tensor 'logits '"),
    "nul": (archive([Part("logits.npy\0.npy", NPY)]), r"unknown tensor 'logits\.npy\\x00'"),
    "not_ascii": (archive([Part("l\u00f6gits.npy", NPY)]), r"unknown tensor 'l\\xc3\\xb6gits'"),
    "empty_name": (archive([Part("", NPY)]), r"member '' is no \.npy file"),
    "npy_only": (archive([Part(".npy", NPY)]), "unknown tensor ''"),
    "long_name": (archive([Part("x" * 60000, NPY)]), r"'x{60}'\.\.\. is no"),
    "duplicate": (archive([PART, PART]), r"the archive has logits\.npy twice"),
    # members' own headers
    "local_signature": (_local(signature=b"PK\3\5"), "its header is not where it must be"),
    "local_flags": (_local(flags=8), _CONTRADICTION),
    "local_method": (_local(method=8), _CONTRADICTION),
    "local_version": (_local(version=46), _CONTRADICTION),
    "local_crc": (_local(crc=1), _CONTRADICTION),
    "local_crc_0": (_local(crc=0), _CONTRADICTION),
    "local_size": (_local(size=151), _CONTRADICTION),
    "local_size_0": (_local(size=0), _CONTRADICTION),
    "local_stored": (_local(stored=151), _CONTRADICTION),
    "local_saturated": (_local(size=FULL, stored=FULL), _CONTRADICTION),
    "local_name": (
        archive([PART]).replace(b"logits.npy", b"labels.npy", 1),
        _CONTRADICTION,
    ),
    "local_name_too_long": (_local(name=60000), "runs into what follows it"),
    "local_extra_too_long": (_local(extra=1), "runs into what follows it"),
    "overlap": (
        archive([PART, replace(_TWO[1], central={"start": 0})]),
        r"logits\.npy: its header is not where it must be",
    ),
    "overlap_by_a_byte": (
        archive([replace(PART, local_extra=b"UT\1\0x", local={"extra": 6}), _TWO[1]]),
        "runs into what follows it",
    ),
    "hole": (archive([replace(PART, trailer=b"\0"), _TWO[1]]), "bytes that belong to nothing"),
    "hole_of_a_descriptor": (
        archive([replace(PART, trailer=descriptor(PART, "L", b"PK\7\10"))]),
        "bytes that belong to nothing",
    ),
    "other_order": (archive([replace(PART, central={"start": 207}), _TWO[1]]), "from the first"),
    # streams
    "no_descriptor": (archive([replace(_STREAMED, trailer=b"")]), "belong to nothing"),
    "descriptor_lies": (
        archive([replace(_STREAMED, trailer=descriptor(DEFLATED, "L", b""))]),
        "belong to nothing",
    ),
    "descriptor_and_a_byte": (
        archive([replace(_STREAMED, trailer=descriptor(PART, "Q", b"PK\7\10") + b"\0")]),
        "belong to nothing",
    ),
    "descriptor_signature": (
        archive([replace(_STREAMED, trailer=descriptor(PART, "L", b"PK\7\7"))]),
        "belong to nothing",
    ),
    "streamed_size_1": (archive([replace(_STREAMED, local={"size": 1})]), _CONTRADICTION),
    "streamed_crc_1": (archive([replace(_STREAMED, local={"crc": 1})]), _CONTRADICTION),
    # extra fields
    "extra_of_3_bytes": (extra(b"UT\0"), _EXTRA),
    "extra_too_long": (extra(b"UT\1\0"), _EXTRA),
    "extra_zeros": (extra(bytes(2)), _EXTRA),
    "extra_unicode_name": (extra(b"up\5\0\1abcd"), "extra field 0x7075"),
    "extra_unknown": (extra(b"\x01\x99\0\0"), "extra field 0x9901"),
    "zip64_of_7_bytes": (extra(b"\1\0\7\0" + bytes(7)), _EXTRA),
    "zip64_twice": (extra(zip64(*_SIZES) * 2), _EXTRA),
    "zip64_unneeded": (extra(zip64(*_SIZES)), _ENTRY),
    "zip64_missing": (central(size=FULL), _ENTRY),
    "zip64_too_short": (
        archive([replace(PART, central={"size": FULL, "stored": FULL}, central_extra=zip64(1))]),
        _ENTRY,
    ),
    "zip64_local_lies": (archive([replace(PART, local_extra=zip64(152, 153))]), _CONTRADICTION),
    "zip64_local_zero": (archive([replace(PART, local_extra=zip64(0, 0))]), _CONTRADICTION),
    "zip64_local_of_1": (archive([replace(PART, local_extra=zip64(152))]), _CONTRADICTION),
    "zip64_local_of_3": (
        archive([replace(PART, local_extra=zip64(*_SIZES, 0))]),
        _CONTRADICTION,
    ),
    # contents
    "crc": (
        central(PART, crc=1).replace(struct.pack("<L", zlib.crc32(NPY)), b"\1\0\0\0"),
        r"logits\.npy is damaged: its CRC-32 is wrong",
    ),
    "deflated_crc": (
        central(DEFLATED, crc=1).replace(struct.pack("<L", zlib.crc32(NPY)), b"\1\0\0\0"),
        "its CRC-32 is wrong",
    ),
    "no_npy_inside": (archive([Part("logits.npy", b"hello")]), r"logits\.npy must start with the"),
    "trailing_byte_inside": (archive([Part("logits.npy", NPY + b"\0")]), "but 25 are there"),
    "nothing_inside": (archive([Part("logits.npy", b"")]), r"logits\.npy must start with the"),
    # deflate
    "not_deflate": (_inflating(b"\xff" * 100), r"logits\.npy is damaged: it cannot be inflated"),
    "cut_deflate": (_inflating(_STREAM[:-1]), _EXACTLY),
    "no_deflate": (_inflating(b"", 0), "does not inflate to exactly the 0 bytes"),
    "two_streams": (_inflating(_STREAM * 2), _EXACTLY),
    "trailing_bytes_of_deflate": (_inflating(_STREAM + bytes(1 << 17)), _EXACTLY),
    "trailing_byte_of_deflate": (_inflating(_STREAM + b"\0"), _EXACTLY),
    "a_byte_too_long": (_inflating(_STREAM, 151), "exactly the 151 bytes"),
    "a_byte_too_short": (_inflating(_STREAM, 153), "exactly the 153 bytes"),
    "much_too_long": (_inflating(zlib.compress(bytes(10**7), 9, -15), 152), _EXACTLY),
    "zlib_not_raw": (_inflating(zlib.compress(NPY)), "it cannot be inflated"),
}
