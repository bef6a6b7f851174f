"""service/codecs/npz.py and zip_reader.py against NumPy, and what they refuse."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import dtypes
from service.codecs.base import DecodeError, Limits, Message, TooLarge
from service.codecs.compression import pieces
from service.codecs.npz import CODEC, encode
from service.codecs.zip import content as zip_content
from service.codecs.zip import reader as zip_reader
from tests.service.codecs.samples import (
    LIMITS,
    NAMES,
    Array,
    as_numpy_saves,
    every_dtype,
    every_shape,
    refusal,
    same,
    sample,
)
from tests.service.codecs.zips import Part, archive, descriptor, zip64

FULL = 0xFFFFFFFF
WRITERS = [np.savez, np.savez_compressed]


def decode(body: bytes | bytearray | memoryview, limits: Limits = LIMITS) -> Message:
    return CODEC.decode(memoryview(body), NAMES, limits)


def saved(write: Any, arrays: dict[str, Array]) -> bytes:
    file = io.BytesIO()
    write(file, **{name: as_numpy_saves(array) for name, array in arrays.items()})
    return file.getvalue()


class Stream(io.RawIOBase):
    """A file that cannot be gone back in, such as a pipe or a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.written += data
        return len(data)

    def read(self, size: int = -1) -> bytes:  # NumPy asks whether it is a file by this
        raise io.UnsupportedOperation


@every_dtype
@every_shape
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("write", WRITERS)
def test_reads_what_numpy_writes(
    write: Any, order: Any, row: dtypes.DType, shape: tuple[int, ...]
) -> None:
    arrays = {"logits": np.array(sample(row, shape), order=order), "labels": np.arange(3)}
    message = decode(saved(write, arrays))
    assert message.options == {}
    assert list(message.tensors) == ["logits", "labels"]
    assert all(same(message.tensors[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize("write", WRITERS)
def test_reads_what_numpy_writes_to_a_stream(write: Any) -> None:
    arrays = {"logits": sample(dtypes.FLOAT32, (2, 3)), "labels": np.arange(2)}
    stream = Stream()
    write(stream, **arrays)
    tensors = decode(stream.written).tensors
    assert all(same(tensors[name], arrays[name]) for name in arrays)


@every_dtype
@every_shape
def test_numpy_reads_what_is_written(row: dtypes.DType, shape: tuple[int, ...]) -> None:
    arrays = {"loss": sample(row, shape), "per_element": sample(dtypes.FLOAT32, (5,))}
    with np.load(io.BytesIO(encode(arrays)), allow_pickle=False) as read:
        assert list(read) == list(arrays)
        for name, array in arrays.items():
            assert read[name].shape == array.shape
            assert read[name].tobytes() == array.tobytes()
            assert read[name].dtype == array.dtype or row is dtypes.BFLOAT16


def test_writes_arrays_of_any_strides_and_ml_dtypes() -> None:
    whole = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    narrow = np.array([1.5, -2, np.nan], ml_dtypes.bfloat16)
    body = encode({"logits": whole.transpose(2, 0, 1)[::-1], "weight": narrow})
    tensors = decode(body).tensors
    assert same(tensors["logits"], whole.transpose(2, 0, 1)[::-1].copy())
    assert tensors["weight"].tobytes() == narrow.tobytes()


def test_the_same_arrays_are_the_same_bytes_and_aligned() -> None:
    arrays = {"logits": sample(dtypes.FLOAT32, (7,)), "labels": sample(dtypes.INTEGERS[0], (5,))}
    body = encode(arrays)
    assert body == encode(arrays)
    whole = np.frombuffer(body, np.uint8)
    for array in decode(body).tensors.values():
        offset = array.ctypes.data - whole.ctypes.data
        assert offset % 64 == 0


def test_refuses_to_write_a_dtype_that_is_not_in_the_table() -> None:
    with pytest.raises(TypeError, match="loss: arrays of complex128 are not sent"):
        encode({"loss": np.zeros(2, complex)})


@pytest.mark.parametrize("make", [bytes, bytearray, lambda body: np.frombuffer(body, np.uint8)])
def test_stored_members_are_views_of_the_body(make: Any) -> None:
    body = make(saved(np.savez, {"logits": np.zeros((2, 3)), "labels": np.arange(2)}))
    for array in decode(body).tensors.values():
        assert np.shares_memory(array, np.frombuffer(body, np.uint8))
        assert array.flags.writeable == (not memoryview(body).readonly)


_LOGITS = sample(dtypes.FLOAT32, (2, 3))
_NPY = saved(np.savez, {"logits": _LOGITS})[60:][: 128 + 24]
_PART = Part("logits.npy", _NPY)
_DEFLATED = replace(_PART, method=8)
_STREAM = _DEFLATED.stored
_SIZES = (len(_NPY), len(_NPY))


def _streamed(part: Part, layout: str, signature: bytes, known: bool) -> Part:
    """``part`` as it is written to a stream, with sizes in its header that are known or 0."""
    local = {} if known else {"crc": 0, "size": 0, "stored": 0}
    return replace(
        part, flags=part.flags | 8, trailer=descriptor(part, layout, signature), local=local
    )


_STREAMED = _streamed(_PART, "L", b"PK\7\10", False)
ACCEPTED: dict[str, bytes] = {
    "plain": archive([_PART]),
    "deflated": archive([_DEFLATED]),
    "utf8_flag": archive([replace(_PART, flags=0x0800)]),
    "deflate_effort": archive([replace(_DEFLATED, flags=0x0006)]),
    "zip64_as_numpy": archive(
        [replace(_PART, local={"size": FULL, "stored": FULL}, local_extra=zip64(*_SIZES))]
    ),
    "zip64_of_old_pythons": archive([replace(_PART, local_extra=zip64(*_SIZES))]),
    "zip64_entry": archive(
        [
            replace(
                _PART,
                central={"size": FULL, "stored": FULL, "start": FULL},
                central_extra=zip64(*_SIZES, 0),
            )
        ]
    ),
    "zip64_entry_size_only": archive(
        [replace(_PART, central={"size": FULL}, central_extra=zip64(len(_NPY)))]
    ),
    "zip64_end": archive([_PART], end64={}),
    "zip64_end_as_zipfile": archive(
        [_PART], end64={}, end={"here": 0xFFFF, "count": 0xFFFF, "size": FULL, "start": FULL}
    ),
    "times": archive(
        [replace(_PART, local_extra=b"UT\5\0\3abcd", central_extra=b"UT\5\0\3abcdux\0\0")]
    ),
    "empty_blocks": archive([replace(_DEFLATED, body=b"\0\0\0\xff\xff" * 10**5 + _STREAM)]),
    **{
        f"streamed_{method}_{layout}_{len(signature)}_{known}": archive(
            [_streamed(part, layout, signature, known), replace(_PART, name="labels.npy")]
        )
        for method, part in (("stored", _PART), ("deflated", _DEFLATED))
        for layout in "LQ"
        for signature in (b"", b"PK\7\10")
        for known in (False, True)
    },
}


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED)
def test_reads_what_other_writers_write(body: bytes) -> None:
    assert same(decode(body).tensors["logits"], _LOGITS)
    with np.load(io.BytesIO(body), allow_pickle=False) as read:
        assert same(read["logits"], _LOGITS)


@pytest.mark.parametrize("body", [archive([]), saved(np.savez, {})])
def test_an_empty_archive_is_an_empty_message(body: bytes) -> None:
    assert decode(body) == Message({}, {})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (saved(np.savez, {"logits": np.zeros(3)}), 30 + 10 + 20 + 128),
        (encode({"logits": np.zeros(3)}), 128 + 128),
        (saved(np.savez_compressed, {"logits": np.zeros(3)}), None),
        (saved(np.savez, {}), None),
        (b"PK\5\6" + saved(np.savez, {"logits": np.zeros(3)})[4:], None),
        (archive([replace(_PART, body=_NPY, method=8)]), None),
        (archive([Part("logits.npy", bytes(300))]), None),
    ],
)
def test_first_tensor_at(body: bytes, expected: int | None) -> None:
    assert CODEC.first_tensor_at(body) == expected
    for size in range(60):
        assert CODEC.first_tensor_at(body[:size]) is None
    assert CODEC.first_tensor_at(body[:200]) == expected


def _central(part: Part = _PART, **lies: int | bytes) -> bytes:
    return archive([replace(part, central=lies)])


def _local(part: Part = _PART, **lies: int | bytes) -> bytes:
    return archive([replace(part, local=lies)])


def _end(**lies: int | bytes) -> bytes:
    return archive([_PART], end=lies)


def _end64(**lies: int | bytes) -> bytes:
    return archive([_PART], end64=lies)


def _extra(extra: bytes) -> bytes:
    return archive([replace(_PART, local_extra=extra, central_extra=extra)])


def _inflating(body: bytes, size: int = len(_NPY)) -> bytes:
    """A deflated member whose bytes are ``body``, and that declares ``size`` bytes."""
    return archive([Part("logits.npy", bytes(size), method=8, body=body)])


_TWO = [_PART, replace(_PART, name="labels.npy")]
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
    "trailing_byte": (archive([_PART]) + b"\0", _END_OF_ZIP),
    "comment": (archive([_PART], end={"comment": 3}) + b"abc", _END_OF_ZIP),
    "comment_length": (_end(comment=3), _LOST_DIRECTORY),
    "npy": (_NPY, _END_OF_ZIP),
    "disk": (_end(disk=1), _LOST_DIRECTORY),
    "directory_disk": (_end(directory_disk=1), _LOST_DIRECTORY),
    "entries_on_this_disk": (_end(here=0), _LOST_DIRECTORY),
    "directory_too_early": (_end(start=0), _LOST_DIRECTORY),
    "directory_too_long": (_end(size=57), _LOST_DIRECTORY),
    "directory_saturated": (_end(start=FULL), _LOST_DIRECTORY),
    "too_few_entries": (_end(here=2, count=2), "has too few entries"),
    "too_many_entries": (_end(here=0, count=0), "belong to no entry"),
    "hole_before_the_directory": (archive([_PART], between=b"\0"), "bytes that belong to nothing"),
    "only_a_hole": (archive([], before=b"\0"), "follow each other from the first byte on"),
    "prefix": (archive([_PART], before=b"#!/bin/sh\n"), "from the first byte on, not start at"),
    "prefix_unadjusted": (b"\0" + archive([_PART]), _LOST_DIRECTORY),
    # zip64's end
    "end64_missing": (archive([], end64={})[56:], _LOST_DIRECTORY),
    "end64_elsewhere": (archive([_PART], locator={"start": 0}), _ENDS),
    "end64_on_a_disk": (archive([_PART], locator={"disk": 1}), _ENDS),
    "end64_disks": (archive([_PART], locator={"disks": 2}), _ENDS),
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
        archive([_PART], end={"start": FULL}, end64={"start": 2**64 - 1}),
        _LOST_DIRECTORY,
    ),
    # entries
    "entry_signature": (_central(signature=b"PK\1\1"), "has too few entries"),
    "entry_name_too_long": (_central(name=60000), "the central directory is cut short"),
    "entry_extra_too_long": (_central(extra=1), "the central directory is cut short"),
    "entry_comment": (_central(comment=1), _ENTRY),
    "entry_disk": (_central(disk=1), _ENTRY),
    "encrypted": (_central(flags=1), "'logits.npy' is encrypted"),
    "strongly_encrypted": (_central(flags=0x41), "is encrypted"),
    "patched": (_central(flags=0x20), "method 0, flags 0x0020, version 45 is not read"),
    "masked_headers": (_central(flags=0x2000), "flags 0x2000"),
    "effort_without_deflate": (_central(flags=2), "flags 0x0002"),
    "bzip2": (_central(method=12), "method 12, .* is not read: write .* numpy.savez"),
    "lzma": (_central(method=14), "method 14, "),
    "deflate64": (_central(method=9), "method 9, "),
    "version_46": (_central(version=46), "version 46 is not read"),
    "start_too_late": (_central(start=1), "from the first byte on"),
    "start_past_the_end": (_central(start=FULL - 1), "from the first byte on"),
    "second_starts_past_the_end": (
        archive([_PART, replace(_TWO[1], central={"start": FULL - 1})]),
        "follow each other from the first byte on",
    ),
    "stored_size": (_central(size=151), "152 bytes in the archive cannot be the 151 bytes"),
    "stored_stored": (_central(stored=151), "151 bytes in the archive cannot be the 152 bytes"),
    # names
    "no_npy": (archive([Part("logits", _NPY)]), r"member 'logits' is no \.npy file"),
    "other_tensor": (
        archive([Part("evil.npy", _NPY)]),
        "unknown tensor 'evil': the tensors here are labels, logits, weight",
    ),
    "parent": (archive([Part("../logits.npy", _NPY)]), r"unknown tensor '\.\./logits'"),
    "absolute": (archive([Part("/logits.npy", _NPY)]), "unknown tensor '/logits'"),
    "folder": (archive([Part("a/logits.npy", _NPY)]), "unknown tensor 'a/logits'"),
    "capitals": (archive([Part("LOGITS.NPY", _NPY)]), r"is no \.npy file"),
    "space": (archive([Part("logits .npy", _NPY)]), "unknown tensor 'logits '"),
    "nul": (archive([Part("logits.npy\0.npy", _NPY)]), r"unknown tensor 'logits\.npy\\x00'"),
    "not_ascii": (archive([Part("l\u00f6gits.npy", _NPY)]), r"unknown tensor 'l\\xc3\\xb6gits'"),
    "empty_name": (archive([Part("", _NPY)]), r"member '' is no \.npy file"),
    "npy_only": (archive([Part(".npy", _NPY)]), "unknown tensor ''"),
    "long_name": (archive([Part("x" * 60000, _NPY)]), r"'x{60}'\.\.\. is no"),
    "duplicate": (archive([_PART, _PART]), r"the archive has logits\.npy twice"),
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
        archive([_PART]).replace(b"logits.npy", b"labels.npy", 1),
        _CONTRADICTION,
    ),
    "local_name_too_long": (_local(name=60000), "runs into what follows it"),
    "local_extra_too_long": (_local(extra=1), "runs into what follows it"),
    "overlap": (
        archive([_PART, replace(_TWO[1], central={"start": 0})]),
        r"logits\.npy: its header is not where it must be",
    ),
    "overlap_by_a_byte": (
        archive([replace(_PART, local_extra=b"UT\1\0x", local={"extra": 6}), _TWO[1]]),
        "runs into what follows it",
    ),
    "hole": (archive([replace(_PART, trailer=b"\0"), _TWO[1]]), "bytes that belong to nothing"),
    "hole_of_a_descriptor": (
        archive([replace(_PART, trailer=descriptor(_PART, "L", b"PK\7\10"))]),
        "bytes that belong to nothing",
    ),
    "other_order": (archive([replace(_PART, central={"start": 207}), _TWO[1]]), "from the first"),
    # streams
    "no_descriptor": (archive([replace(_STREAMED, trailer=b"")]), "belong to nothing"),
    "descriptor_lies": (
        archive([replace(_STREAMED, trailer=descriptor(_DEFLATED, "L", b""))]),
        "belong to nothing",
    ),
    "descriptor_and_a_byte": (
        archive([replace(_STREAMED, trailer=descriptor(_PART, "Q", b"PK\7\10") + b"\0")]),
        "belong to nothing",
    ),
    "descriptor_signature": (
        archive([replace(_STREAMED, trailer=descriptor(_PART, "L", b"PK\7\7"))]),
        "belong to nothing",
    ),
    "streamed_size_1": (archive([replace(_STREAMED, local={"size": 1})]), _CONTRADICTION),
    "streamed_crc_1": (archive([replace(_STREAMED, local={"crc": 1})]), _CONTRADICTION),
    # extra fields
    "extra_of_3_bytes": (_extra(b"UT\0"), _EXTRA),
    "extra_too_long": (_extra(b"UT\1\0"), _EXTRA),
    "extra_zeros": (_extra(bytes(2)), _EXTRA),
    "extra_unicode_name": (_extra(b"up\5\0\1abcd"), "extra field 0x7075"),
    "extra_unknown": (_extra(b"\x01\x99\0\0"), "extra field 0x9901"),
    "zip64_of_7_bytes": (_extra(b"\1\0\7\0" + bytes(7)), _EXTRA),
    "zip64_twice": (_extra(zip64(*_SIZES) * 2), _EXTRA),
    "zip64_unneeded": (_extra(zip64(*_SIZES)), _ENTRY),
    "zip64_missing": (_central(size=FULL), _ENTRY),
    "zip64_too_short": (
        archive([replace(_PART, central={"size": FULL, "stored": FULL}, central_extra=zip64(1))]),
        _ENTRY,
    ),
    "zip64_local_lies": (archive([replace(_PART, local_extra=zip64(152, 153))]), _CONTRADICTION),
    "zip64_local_zero": (archive([replace(_PART, local_extra=zip64(0, 0))]), _CONTRADICTION),
    "zip64_local_of_1": (archive([replace(_PART, local_extra=zip64(152))]), _CONTRADICTION),
    "zip64_local_of_3": (
        archive([replace(_PART, local_extra=zip64(*_SIZES, 0))]),
        _CONTRADICTION,
    ),
    # contents
    "crc": (
        _central(_PART, crc=1).replace(struct.pack("<L", zlib.crc32(_NPY)), b"\1\0\0\0"),
        r"logits\.npy is damaged: its CRC-32 is wrong",
    ),
    "deflated_crc": (
        _central(_DEFLATED, crc=1).replace(struct.pack("<L", zlib.crc32(_NPY)), b"\1\0\0\0"),
        "its CRC-32 is wrong",
    ),
    "no_npy_inside": (archive([Part("logits.npy", b"hello")]), r"logits\.npy must start with the"),
    "trailing_byte_inside": (archive([Part("logits.npy", _NPY + b"\0")]), "but 25 are there"),
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
    "zlib_not_raw": (_inflating(zlib.compress(_NPY)), "it cannot be inflated"),
}


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(body: bytes, message: str) -> None:
    error = refusal(lambda: decode(body))
    assert not isinstance(error, TooLarge)
    with pytest.raises(DecodeError, match=message):
        raise error


@pytest.mark.parametrize("write", WRITERS)
def test_refuses_every_cut_body(write: Any) -> None:
    body = saved(write, {"logits": _LOGITS, "labels": np.arange(2)})
    for cut in range(len(body)):
        refusal(lambda cut=cut: decode(body[:cut]))  # type: ignore[misc]


@pytest.mark.parametrize("write", WRITERS)
def test_notices_every_flipped_bit_of_the_data(write: Any) -> None:
    body = saved(write, {"logits": _LOGITS})
    start = 60
    end = body.index(b"PK\1\2")
    for at in range(start, end):
        flipped = bytearray(body)
        flipped[at] ^= 1 << at % 8
        refusal(lambda flipped=flipped: decode(flipped))  # type: ignore[misc]


def test_inflates_members_of_many_steps() -> None:
    logits = np.random.default_rng(0).normal(size=(700, 300)).astype(np.float32)
    logits[:300] = 0
    arrays: dict[str, Array] = {"logits": logits, "labels": np.arange(3 * 10**5)}
    tensors = decode(saved(np.savez_compressed, arrays), Limits(1 << 24)).tensors
    assert all(same(tensors[name], arrays[name]) for name in arrays)


def _peak(run: Callable[[], object]) -> int:
    tracemalloc.start()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_inflating_takes_one_buffer_and_little_more() -> None:
    size = 1 << 24
    labels = np.random.default_rng(0).integers(0, 255, size // 8)
    body = saved(np.savez_compressed, {"labels": labels})
    assert _peak(lambda: decode(body, Limits(size + 128))) < size + (1 << 20)


def test_reading_stored_members_takes_no_memory() -> None:
    body = saved(np.savez, {"logits": np.zeros(1 << 20, np.float32)})
    assert _peak(lambda: decode(body, Limits(1 << 23))) < 1 << 16


def test_a_bomb_is_refused_before_anything_is_allocated() -> None:
    bomb = saved(np.savez_compressed, {"logits": np.zeros(1 << 24, np.float32)})
    error = refusal(lambda: decode(bomb))
    assert isinstance(error, TooLarge)
    assert re.fullmatch(
        "the archive's members inflate to 67,108,992 bytes or more, and of one of 65,... bytes at "
        "most 1,05.,... are read: write it with numpy.savez",
        error.message,
    )
    assert _peak(lambda: refusal(lambda: decode(bomb))) < 1 << 16


def test_the_limit_is_for_the_sum_of_the_members() -> None:
    body = archive([_DEFLATED, replace(_DEFLATED, name="labels.npy")])
    assert len(decode(body, Limits(304)).tensors) == 2
    assert isinstance(refusal(lambda: decode(body, Limits(303))), TooLarge)


@pytest.mark.parametrize("declared", [2**20, 2**32 - 2])
def test_a_size_that_deflate_cannot_reach_is_refused_before_anything_is_allocated(
    declared: int,
) -> None:
    body = _central(_DEFLATED, size=declared)
    error = refusal(lambda: decode(body, Limits(2**62)))
    assert f"cannot be the {declared:,} bytes it declares" in error.message
    assert _peak(lambda: refusal(lambda: decode(body, Limits(2**62)))) < 1 << 16


def test_a_size_over_4_gib_does_not_fit_a_short_descriptor(monkeypatch: Any) -> None:
    monkeypatch.setattr(zip_reader, "justified", lambda length: 2**40)
    part = Part("logits.npy", b"", method=8, flags=8, body=bytes(1 << 23), trailer=bytes(12))
    lies = {"size": FULL, "crc": 0}
    body = archive([replace(part, central=lies, central_extra=zip64(2**32 + 1), local={"size": 0})])
    error = refusal(lambda: decode(body, Limits(2**40)))
    assert "is followed by bytes that belong to nothing" in error.message


def test_the_most_that_deflate_can_do_is_understood(monkeypatch: Any) -> None:
    monkeypatch.setattr(zip_reader, "justified", lambda length: 2**40)
    body = saved(np.savez_compressed, {"logits": np.zeros(1 << 22, np.float32)})
    info = zipfile.ZipFile(io.BytesIO(body)).infolist()[0]
    assert 1000 < info.file_size / info.compress_size < 1032
    assert not decode(body, Limits(1 << 25)).tensors["logits"].any()


def test_members_inflate_to_what_the_length_of_the_whole_archive_justifies() -> None:
    labels, logits = np.zeros(1 << 13, np.int64), sample(dtypes.FLOAT32, (2**13, 2))
    assert isinstance(
        refusal(lambda: decode(saved(np.savez_compressed, {"labels": labels}))), TooLarge
    )
    alone = saved(np.savez_compressed, {"labels": labels})
    assert decode(alone, Limits(1 << 20, own=True)).tensors["labels"].shape == labels.shape
    both = decode(saved(np.savez_compressed, {"labels": labels, "logits": logits}))
    assert both.tensors["labels"].shape == labels.shape


def test_a_header_that_is_wrong_ends_a_member_before_the_rest_is_inflated(monkeypatch: Any) -> None:
    made: list[int] = []

    def counted(*given: Any) -> Iterator[bytes]:
        for piece in pieces(*given):
            made.append(len(piece))
            yield piece

    monkeypatch.setattr(zip_content, "pieces", counted)
    noise = np.random.default_rng(0).integers(0, 32, 1 << 22, np.uint8).tobytes()
    part = Part("logits.npy", _NPY + noise, method=8)
    error = refusal(lambda: decode(archive([part]), Limits(1 << 24)))
    assert "shape [2, 3] of float32 takes 24 bytes, but 4,194,328 are there" in error.message
    assert sum(made) < 1 << 19


def test_extra_fields_are_few() -> None:
    field = b"UT\0\0"
    decode(_extra(field * 16))
    assert "extra field" in refusal(lambda: decode(_extra(field * 17))).message


def test_an_archive_of_very_many_members_is_refused_at_the_first() -> None:
    body = archive([Part(f"{number}.npy", b"") for number in range(5000)])
    error = refusal(lambda: decode(body))
    assert error.message.startswith("unknown tensor '0'")
    # Where it is asked for its size, no name is known.
    assert CODEC.decoded_bytes(memoryview(body)) == 0
    error = refusal(lambda: zip_reader.members(memoryview(body), lambda name: None))
    assert error.message == "the archive has 5,000 members, and at most 64 are read"


_ARRAYS = st.dictionaries(
    st.sampled_from(sorted(NAMES)),
    st.builds(
        sample,
        st.sampled_from(dtypes.ALL),
        st.lists(st.integers(0, 4), max_size=5),
    ),
)


@given(_ARRAYS, st.sampled_from([*WRITERS, None]))
def test_round_trip(arrays: dict[str, Array], write: Any) -> None:
    tensors = decode(saved(write, arrays) if write else encode(arrays)).tensors
    assert list(tensors) == list(arrays)
    assert all(same(tensors[name], arrays[name]) for name in arrays)
