"""service/codecs/npz.py and zip_reader.py against NumPy, and what they refuse."""

from __future__ import annotations

import io
import re
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import dtypes
from service.codecs.base import Limits, Message
from service.codecs.compression import pieces
from service.codecs.npz import CODEC
from service.codecs.zip import content as zip_content
from service.codecs.zip import reader as zip_reader
from service.errors import DecodeError, TooLarge
from tests.service.codecs.npzs import (
    ACCEPTED,
    DEFLATED,
    FULL,
    LOGITS,
    NPY,
    PART,
    REFUSED,
    central,
    extra,
    saved,
)
from tests.service.codecs.samples import (
    LIMITS,
    NAMES,
    Array,
    every_dtype,
    every_shape,
    refusal,
    same,
    sample,
)
from tests.service.codecs.zips import Part, archive, zip64

WRITERS = [np.savez, np.savez_compressed]


def decode(body: bytes | bytearray | memoryview, limits: Limits = LIMITS) -> Message:
    return CODEC.decode(memoryview(body), NAMES, limits)


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
    with np.load(io.BytesIO(CODEC.encode(arrays)), allow_pickle=False) as read:
        assert list(read) == list(arrays)
        for name, array in arrays.items():
            assert read[name].shape == array.shape
            assert read[name].tobytes() == array.tobytes()
            assert read[name].dtype == array.dtype or row is dtypes.BFLOAT16


def test_writes_arrays_of_any_strides_and_ml_dtypes() -> None:
    whole = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    narrow = np.array([1.5, -2, np.nan], ml_dtypes.bfloat16)
    body = CODEC.encode({"logits": whole.transpose(2, 0, 1)[::-1], "weight": narrow})
    tensors = decode(body).tensors
    assert same(tensors["logits"], whole.transpose(2, 0, 1)[::-1].copy())
    assert tensors["weight"].tobytes() == narrow.tobytes()


def test_the_same_arrays_are_the_same_bytes_and_aligned() -> None:
    arrays = {"logits": sample(dtypes.FLOAT32, (7,)), "labels": sample(dtypes.INTEGERS[0], (5,))}
    body = CODEC.encode(arrays)
    assert body == CODEC.encode(arrays)
    whole = np.frombuffer(body, np.uint8)
    for array in decode(body).tensors.values():
        offset = array.ctypes.data - whole.ctypes.data
        assert offset % 64 == 0


def test_refuses_to_write_a_dtype_that_is_not_in_the_table() -> None:
    with pytest.raises(TypeError, match="loss: arrays of complex128 are not sent"):
        CODEC.encode({"loss": np.zeros(2, complex)})


@pytest.mark.parametrize("make", [bytes, bytearray, lambda body: np.frombuffer(body, np.uint8)])
def test_stored_members_are_views_of_the_body(make: Any) -> None:
    body = make(saved(np.savez, {"logits": np.zeros((2, 3)), "labels": np.arange(2)}))
    for array in decode(body).tensors.values():
        assert np.shares_memory(array, np.frombuffer(body, np.uint8))
        assert array.flags.writeable == (not memoryview(body).readonly)


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED)
def test_reads_what_other_writers_write(body: bytes) -> None:
    assert same(decode(body).tensors["logits"], LOGITS)
    with np.load(io.BytesIO(body), allow_pickle=False) as read:
        assert same(read["logits"], LOGITS)


@pytest.mark.parametrize("body", [archive([]), saved(np.savez, {})])
def test_an_empty_archive_is_an_empty_message(body: bytes) -> None:
    assert decode(body) == Message({}, {})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (saved(np.savez, {"logits": np.zeros(3)}), 30 + 10 + 20 + 128),
        (CODEC.encode({"logits": np.zeros(3)}), 128 + 128),
        (saved(np.savez_compressed, {"logits": np.zeros(3)}), None),
        (saved(np.savez, {}), None),
        (b"PK\5\6" + saved(np.savez, {"logits": np.zeros(3)})[4:], None),
        (archive([replace(PART, body=NPY, method=8)]), None),
        (archive([Part("logits.npy", bytes(300))]), None),
    ],
)
def test_aligned_at(body: bytes, expected: int | None) -> None:
    assert CODEC.aligned_at(body) == expected
    for size in range(60):
        assert CODEC.aligned_at(body[:size]) is None
    assert CODEC.aligned_at(body[:200]) == expected


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(body: bytes, message: str) -> None:
    error = refusal(lambda: decode(body))
    assert not isinstance(error, TooLarge)
    with pytest.raises(DecodeError, match=message):
        raise error


@pytest.mark.parametrize("write", WRITERS)
def test_refuses_every_cut_body(write: Any) -> None:
    body = saved(write, {"logits": LOGITS, "labels": np.arange(2)})
    for cut in range(len(body)):
        refusal(lambda cut=cut: decode(body[:cut]))  # type: ignore[misc]


@pytest.mark.parametrize("write", WRITERS)
def test_notices_every_flipped_bit_of_the_data(write: Any) -> None:
    body = saved(write, {"logits": LOGITS})
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
    body = archive([DEFLATED, replace(DEFLATED, name="labels.npy")])
    assert len(decode(body, Limits(304)).tensors) == 2
    assert isinstance(refusal(lambda: decode(body, Limits(303))), TooLarge)


@pytest.mark.parametrize("declared", [2**20, 2**32 - 2])
def test_a_size_that_deflate_cannot_reach_is_refused_before_anything_is_allocated(
    declared: int,
) -> None:
    body = central(DEFLATED, size=declared)
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
    part = Part("logits.npy", NPY + noise, method=8)
    error = refusal(lambda: decode(archive([part]), Limits(1 << 24)))
    assert "shape [2, 3] of float32 takes 24 bytes, but 4,194,328 are there" in error.message
    assert sum(made) < 1 << 19


def test_extra_fields_are_few() -> None:
    field = b"UT\0\0"
    decode(extra(field * 16))
    assert "extra field" in refusal(lambda: decode(extra(field * 17))).message


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
    tensors = decode(saved(write, arrays) if write else CODEC.encode(arrays)).tensors
    assert list(tensors) == list(arrays)
    assert all(same(tensors[name], arrays[name]) for name in arrays)
