"""Shards in .npz archives: stored members where they lie, deflated ones inflated by rows.

An archive's only check is the CRC-32 of each member, so a process reads a member once as a whole
before it gives a row of it. While it does, it keeps places in deflated members, from where it later
goes on, so that no member is ever in memory as a whole (but for one that is deflated and in Fortran
order).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.bulk import files
from service.bulk.files import Source
from service.bulk.formats import npy
from service.bulk.formats.base import STEP, Held, Tensor
from service.codecs.base import Array
from service.codecs.npy import Layout
from service.codecs.zip import content as zip_content
from service.codecs.zip import reader as zip_reader
from service.codecs.zip.reader import Member
from service.errors import DecodeError

_SUFFIX = ".npy"
# Bytes at the end of an archive that hold its directory, of up to some 10,000 members.
_DIRECTORY = 1 << 20
# Bytes at a member's start that hold its own header: a name and fields of 65,535 bytes each.
_HEADER, _TRAILER = 1 << 18, 32
# Bytes of the archive that are inflated at a time, and of a member between two places that are
# kept. A place takes some 50 KB: zlib's window and tables.
_COMPRESSED, _PLACE = 1 << 18, 1 << 25


def opened(location: str, wanted: Mapping[str, str]) -> Held:
    """Open the archive at ``location``."""
    source = files.opened(location)
    try:
        body = source.outline((source.size - _DIRECTORY, source.size))
        members = {
            member.name.removesuffix(_SUFFIX): member
            for member in zip_reader.members(body, lambda name: None, own=True)
        }
        tensors = {
            ours: _tensor(source, members[name], ours)
            for ours, name in wanted.items()
            if name in members
        }
    except BaseException:
        source.close()
        raise
    others = [name for name in members if name not in wanted.values()]
    return Held(tensors, others, close=source.close)


def _tensor(source: Source, member: Member, name: str) -> Tensor:
    begin, end = member.start, member.end
    body = source.outline((begin, begin + _HEADER), (end - _TRAILER, end))
    data = zip_content.stored(body, member)
    at = files.offset(body, data)
    if member.method == zip_reader.DEFLATED:
        return _deflated(source, at, member, name)
    return _Stored(source, at, member, npy.tensor(source, at, member.size, member.name, name))


class _Stored:
    """Stored member, whose CRC-32 is checked before its first row is given."""

    def __init__(self, source: Source, at: int, member: Member, tensor: Tensor) -> None:
        self.row, self.shape, self.starts = tensor.row, tensor.shape, tensor.starts
        self._source, self._at, self._member, self._tensor = source, at, member, tensor
        self._checked = False

    def read(self, first: int, stop: int) -> Array:
        if not self._checked:
            crc, end = 0, self._at + self._member.size
            for begin in range(self._at, end, STEP):
                crc = zlib.crc32(self._source.read(begin, min(begin + STEP, end)), crc)
            _check_crc(crc, self._member)
            self._checked = True
        return self._tensor.read(first, stop)


def _check_crc(crc: int, member: Member) -> None:
    if crc != member.crc:
        raise DecodeError(f"{member.name} is damaged: its CRC-32 is wrong", where=member.name)


def _deflated(source: Source, at: int, member: Member, name: str) -> Tensor:
    inflation = _Inflation(source, at, member)
    begun = memoryview(inflation.take(min(member.size, npy.HEAD)))
    layout = npy.checked_layout(begun, member.size, member.name, name)
    by_columns = layout.fortran and len(layout.shape) > 1
    return (_DeflatedColumns if by_columns else _Deflated)(source, at, member, layout)


class _Deflated:
    """Deflated member, inflated from the last place before the rows that are asked for."""

    starts: Sequence[int] = (0,)

    def __init__(self, source: Source, at: int, member: Member, layout: Layout) -> None:
        self.row, self.shape = layout.row, tuple(layout.shape)
        self._member, self._start = member, layout.start
        self._row_bytes = int(np.prod(self.shape[1:], dtype=object)) * self.row.size
        self._places = [_Inflation(source, at, member)]
        self._checked = False

    def read(self, first: int, stop: int) -> Array:
        if not self._checked:
            self._check()
        begin = self._start + first * self._row_bytes
        inflation = max(
            (place for place in self._places if place.made <= begin), key=lambda place: place.made
        ).copy()
        inflation.skip(begin - inflation.made)
        data = inflation.take((stop - first) * self._row_bytes)
        return np.ndarray((stop - first, *self.shape[1:]), self.row.numpy, buffer=data)

    def _check(self) -> None:
        """Inflate all of the member for its CRC-32, and keep the places from where to go on."""
        inflation, places = self._places[0].copy(), self._places[:1]
        while left := self._member.size - inflation.made:
            inflation.skip(min(left, _PLACE))
            places.append(inflation.copy())
        inflation.end()
        self._places, self._checked = places, True


class _DeflatedColumns:
    """Deflated member in Fortran order, no row of which is there before all of it is inflated."""

    starts: Sequence[int] = (0,)

    def __init__(self, source: Source, at: int, member: Member, layout: Layout) -> None:
        self.row, self.shape = layout.row, tuple(layout.shape)
        self._member, self._start = member, layout.start
        self._inflation = _Inflation(source, at, member)
        self._array: Array | None = None

    def read(self, first: int, stop: int) -> Array:
        if self._array is None:
            inflation = self._inflation.copy()
            body = memoryview(inflation.take(self._member.size))
            inflation.end()
            data = body[self._start :]
            self._array = np.ndarray(self.shape, self.row.numpy, buffer=data, order="F")
        return self._array[first:stop]


class _Inflation:
    """Place in a deflated member: ``made`` bytes of it precede, whose CRC-32 is known."""

    def __init__(self, source: Source, at: int, member: Member) -> None:
        self._source, self._member = source, member
        self._at, self._end = at, at + member.stored
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._ahead: Any = b""  # compressed bytes that were read, and are not inflated yet
        self._crc = self.made = 0

    def copy(self) -> _Inflation:
        """Return another one at the same place."""
        other = _Inflation(self._source, self._at, self._member)
        other._end = self._end
        other._inflate, other._ahead = self._inflate.copy(), self._ahead
        other._crc, other.made = self._crc, self.made
        return other

    def take(self, count: int) -> bytearray:
        """Return the next ``count`` bytes. Raises ``DecodeError``."""
        out, have = bytearray(count), 0
        while have < count:
            piece = self._next(min(STEP, count - have))
            out[have : have + len(piece)] = piece
            have += len(piece)
        return out

    def skip(self, count: int) -> None:
        """Pass over the next ``count`` bytes. Raises ``DecodeError``."""
        while count:
            count -= len(self._next(min(STEP, count)))

    def end(self) -> None:
        """Raise ``DecodeError`` unless all that is deflated was made, and has the right CRC-32."""
        try:
            beyond = self._inflate.decompress(self._ahead, 1)
            while not beyond and not self._inflate.eof and self._at < self._end:
                beyond = self._inflate.decompress(self._compressed(), 1)
        except zlib.error:
            raise self._damaged() from None
        if beyond or not self._inflate.eof or self._at < self._end or self._inflate.unused_data:
            raise self._wrong_size()
        _check_crc(self._crc, self._member)

    def _next(self, most: int) -> bytes:
        """Inflate from one to ``most`` bytes."""
        try:
            while not (piece := self._inflate.decompress(self._ahead or self._compressed(), most)):
                self._ahead = self._inflate.unconsumed_tail
                if self._inflate.eof or (self._at == self._end and not self._ahead):
                    raise self._wrong_size()
        except zlib.error:
            raise self._damaged() from None
        self._ahead = self._inflate.unconsumed_tail
        self._crc = zlib.crc32(piece, self._crc)
        self.made += len(piece)
        return piece

    def _compressed(self) -> memoryview:
        begin, self._at = self._at, min(self._at + _COMPRESSED, self._end)
        return self._source.read(begin, self._at)

    def _damaged(self) -> DecodeError:
        name = self._member.name
        return DecodeError(f"{name} is damaged: it cannot be inflated", where=name)

    def _wrong_size(self) -> DecodeError:
        name, size = self._member.name, self._member.size
        return DecodeError(
            f"{name} does not inflate to exactly the {size:,} bytes it declares", where=name
        )
