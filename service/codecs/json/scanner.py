"""Single pass over a tensor's JSON text, nested lists of numbers, straight into an array.

The kernel runs without the GIL, allocates nothing and raises nothing: it fills the arrays that it
is given, and returns a status and a place. A loop replaces the recursion of the grammar (RFC 8259),
so that a million brackets are only too deep.

Every integer is explicitly int64 or uint64: Numba makes a float64 of a sum of both.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types

from kernels.cache import cached
from kernels.compiled import inlined, stamp_of
from service.codecs.base import MAX_RANK
from service.codecs.json.bits import U64
from service.codecs.json.decimals import MOST_DIGITS, narrow, to_float
from service.codecs.json.element_types import FLOAT32, FLOAT64, INT64, NARROW, Outputs, Target
from service.codecs.json.long_decimals import long_to_float
from service.codecs.json.plain_numbers import read_plain
from service.codecs.json.tokens import number, peek, skip_space, truth, word

# Status of the kernel.
(
    DONE,
    STRAY,  # neither a comma nor the end of the row after an element or a row
    NO_ELEMENT,  # neither a number as JSON writes them nor one of the words
    OVERFLOW,  # a finite number that would become infinite
    NOT_INTEGER,  # an element that is no integer, for INT64
    BIG_INTEGER,  # an integer of more than 64 bits, for INT64
    RAGGED,  # a row whose length is not that of the first one
    NO_ROW,  # a number, or nothing, in the place of a row
    ROW,  # a row in the place of a number
    DEEP,  # more than MAX_RANK brackets
    FULL,  # more elements than the output holds
) = range(11)


class Place(NamedTuple):
    """Shape of the tensor, and index of the element or row that was read last: int64, MAX_RANK."""

    shape: Any
    index: Any


@inlined
def _store(
    text: Any, at: int, target: Target, outputs: Outputs, count: int, scratch: Any
) -> tuple[int, int]:
    """Read the element at ``at`` into the output's place ``count``: (status, its end)."""
    negative = peek(text, at) == ord("-")
    start = at + negative
    end, w, q, digits, integer = number(text, start)
    if target.kind == INT64:
        if end < 0 or not integer:
            status = NOT_INTEGER if end >= 0 or word(text, at)[0] >= 0 else NO_ELEMENT
            return status, at
        if digits > MOST_DIGITS or w > U64(2**63 - 1) + U64(negative):
            return BIG_INTEGER, at
        outputs.int64[U64(count)] = -np.int64(w) if negative else np.int64(w)
        return DONE, end
    if end < 0:
        end, value = word(text, at)
        if end < 0 and target.boolean:
            end, value = truth(text, at)
        if end < 0:
            return NO_ELEMENT, at
    else:
        if digits <= MOST_DIGITS:
            value = to_float(w, q)
        else:
            value = long_to_float(text, start, end, q, scratch)
        if value >= target.limit:
            return OVERFLOW, at
        value = -value if negative else value
    if target.kind == FLOAT32:
        outputs.float32[U64(count)] = np.float32(value)
    elif target.kind == FLOAT64:
        outputs.float64[U64(count)] = value
    else:
        outputs.narrow[U64(count)] = narrow(value, target.fraction, target.bias)
    return DONE, end


def _read_tensor(
    text: Any,
    at: int,
    target: Target,
    outputs: Outputs,
    place: Place,
    scratch: Any,
    depth: int,
    count: int,
) -> tuple[int, int, int, int]:
    """Read the tensor that starts at ``at`` into the output that ``target`` says.

    ``text`` is a read-only uint8 array, ``place`` holds two int64 arrays of MAX_RANK, and
    ``scratch`` is a uint64 array of the shape SCRATCH; ``depth`` and ``count`` are 0. After FULL
    it goes on with a larger output that begins with the same elements, if it is given the same
    ``place``, and what it returned for the rest. Returns

    - DONE, the tensor's end, its rank, the number of its elements; ``place.shape`` is its shape, or
    - what is wrong, where, the length of the index in ``place.index``, and for RAGGED the row's
      length, for FULL the output's.
    """
    shape, index = place
    capacity = outputs.float32.size + outputs.float64.size
    capacity += outputs.narrow.size + outputs.int64.size
    if count == 0:
        depth, rank, last = 0, -1, 0
        shape[:] = -1
    else:
        rank, last = depth, index[depth - 1]
    narrows = target.kind == FLOAT32 or target.kind == NARROW
    trying = narrows
    while True:
        at = skip_space(text, at)
        if depth > 0:
            index[depth - 1] = last
        if peek(text, at) == ord("["):
            if depth in (rank, MAX_RANK):
                return ROW if depth == rank else DEEP, at, depth, 0
            depth += 1
            last = 0
            at = skip_space(text, at + 1)
            if peek(text, at) != ord("]"):
                continue
            last = -1
            rank = depth if rank < 0 else rank
        else:
            rank = depth if rank < 0 else rank
            if depth != rank:
                return NO_ROW, at, depth, 0
            if count == capacity:
                return FULL, at, depth, count
            before = count
            # A vain try costs 3 of 15 ns a number: after one, every second number is tried.
            if trying and depth > 0:
                at, count = read_plain(text, at, target, outputs, count, capacity)
                trying = count > before
            else:
                trying = narrows
            if count > before:
                last += count - before - 1
                index[depth - 1] = last
            else:
                status, at = _store(text, at, target, outputs, count, scratch)
                if status != DONE:
                    return status, at, depth, 0
                count += 1
        while True:
            if depth == 0:
                return DONE, at, rank, count
            at = skip_space(text, at)
            byte = peek(text, at)
            at += 1
            if byte == ord(","):
                last += 1
                break
            if byte != ord("]"):
                return STRAY, at - 1, depth, 0
            depth -= 1
            length = last + 1
            if shape[depth] >= 0 and shape[depth] != length:
                return RAGGED, at, depth, length
            shape[depth] = length
            last = index[depth - 1] if depth > 0 else 0


@cache
def compiled() -> Any:
    """``_read_tensor`` for the one type that each argument has, from Numba's cache if it is there.

    Not when this is imported: it takes 5 s where the cache is empty. ``service.process.warm_up``
    calls it before any request can.
    """
    integer, several = types.int64, types.NamedTuple
    arrays = (types.float32[::1], types.float64[::1], types.uint16[::1], types.int64[::1])
    signature = types.UniTuple(integer, 4)(
        types.Array(types.uint8, 1, "C", readonly=True),
        integer,
        several((integer, integer, integer, types.float64, integer), Target),
        several(arrays, Outputs),
        types.NamedUniTuple(integer[::1], 2, Place),
        types.uint64[:, ::1],
        integer,
        integer,
    )
    if not _KERNEL.signatures:
        _KERNEL.compile(signature)
        _KERNEL.disable_compile()
    return _KERNEL


# Its code is void once any file of this package changes: functions of them are inlined.
_KERNEL = cached(
    njit(nogil=True, error_model="numpy", _nrt=False)(_read_tensor),
    stamp_of(Path(__file__).parent.glob("*.py")),
)
