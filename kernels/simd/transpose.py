"""Transposition of small matrices in registers: rows of few classes become planes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiled import inlined
from kernels.simd.lanes import FLOAT32X16, int32s
from kernels.simd.memory import address_of, check, first_lanes, widen

COUNT = FLOAT32X16.count


def _shuffled(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(a, b, int32s(lanes))


def _unpacked(builder: Any, a: Any, b: Any, size: int) -> list[Any]:
    """Interleave ``size`` lanes of ``a`` and ``b``: the low, then the high half of each quarter."""
    return [
        _shuffled(
            builder,
            a,
            b,
            [
                quarter + first + k + source
                for quarter in range(0, COUNT, 4)
                for first in range(half, half + 2, size)
                for source in (0, COUNT)
                for k in range(size)
            ],
        )
        for half in (0, 2)
    ]


def _fours(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose the 4 x 4 matrix that four registers hold in each quarter: 8 shuffles."""
    low, high = (_unpacked(builder, rows[r], rows[r + 1], 1) for r in (0, 2))
    return [each for k in (0, 1) for each in _unpacked(builder, low[k], high[k], 2)]


def _columns(builder: Any, rows: list[Any]) -> list[Any]:
    """Columns of a 16 x 16 matrix: 64 shuffles of one instruction each."""
    # fours[k][j] has elements 4 * q + j of rows 4 * k to 4 * k + 3 in quarter q.
    fours = [_fours(builder, rows[first : first + 4]) for first in range(0, COUNT, 4)]
    columns: list[Any] = [None] * COUNT
    for j in range(4):
        for odd in (0, 1):
            quarters = [4 * (2 * k + odd) + lane for k in (0, 1) for lane in range(4)]
            picked = quarters + [COUNT + lane for lane in quarters]
            low = _shuffled(builder, fours[0][j], fours[1][j], picked)
            high = _shuffled(builder, fours[2][j], fours[3][j], picked)
            for k in (0, 1):
                halves = [4 * (2 * m + k) + lane for m in (0, 1) for lane in range(4)]
                both = halves + [COUNT + lane for lane in halves]
                columns[4 * (2 * k + odd) + j] = _shuffled(builder, low, high, both)
    return columns


def _joined(builder: Any, parts: list[Any]) -> Any:
    """Vectors after each other in one; they are as many as a power of two."""
    while len(parts) > 1:
        lanes = list(range(2 * parts[0].type.count))
        parts = [_shuffled(builder, parts[k], parts[k + 1], lanes) for k in range(0, len(parts), 2)]
    return parts[0]


def _eight_columns(builder: Any, row: Any) -> list[Any]:
    """Columns of 16 rows of eight; ``row`` loads one: 24 shuffles."""
    halves = []
    for half in (0, 8):  # rows 0 to 7 are in halves[0], row 4 + r after row r
        pairs = [[row(half + r), row(half + 4 + r)] for r in range(4)]
        halves.append(_fours(builder, [_joined(builder, pair) for pair in pairs]))
    quarters = [[4 * quarter + lane for quarter in (k, k + 2) for lane in range(4)] for k in (0, 1)]
    return [
        _shuffled(builder, low, high, lanes + [COUNT + lane for lane in lanes])
        for lanes in quarters
        for low, high in zip(*halves, strict=True)
    ]


@intrinsic(prefer_literal=True)
def _transpose_even(
    typing: Any, x: Any, first: Any, apart: Any, count: Any, out: Any, at: Any, stride: Any
) -> Any:
    size = count.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, start, each, _, target, index, step = args
        memory = ir.VectorType(context.get_data_type(x.dtype), size)
        to = context.get_value_type(FLOAT32X16)

        def row(r: int) -> Any:
            offset = builder.mul(each, ir.Constant(ir.IntType(64), r))
            address = address_of(context, builder, x, array, builder.add(start, offset))
            value = builder.load(
                builder.bitcast(address, memory.as_pointer()), align=x.dtype.bitwidth // 8
            )
            return widen(builder, x.dtype, value, ir.VectorType(to.element, size))

        if size == 8:
            columns = _eight_columns(builder, row)
        else:
            rows = [_joined(builder, [row(4 * q + r) for q in range(4)]) for r in range(4)]
            columns = _fours(builder, rows)
        for column in columns:
            address = address_of(context, builder, out, target, index)
            builder.store(column, builder.bitcast(address, to.as_pointer()), align=4)
            index = builder.add(index, step)
        return context.get_dummy_value()

    kinds = (x, types.intp, types.intp, count, out, types.intp, types.intp)
    return types.void(*kinds), codegen


def evenly(count: int) -> Any:
    """Function that transposes 16 rows of ``count`` elements, 8 or 4, that are evenly ``apart``.

    The rows begin at ``first + r * apart`` in ``x``; column c goes to ``out[at + c * stride:]``, 16
    float32 long.
    """

    @inlined
    def transpose_evenly(x: Any, first: int, apart: int, out: Any, at: int, stride: int) -> None:
        check(x, first, count)
        check(x, first + (COUNT - 1) * apart, count)
        check(out, at, COUNT)
        check(out, at + (count - 1) * stride, COUNT)
        _transpose_even(x, first, apart, count, out, at, stride)

    return transpose_evenly


transpose_eights, transpose_fours = evenly(8), evenly(4)


@intrinsic
def _transpose(
    typing: Any, x: Any, starts: Any, offset: Any, count: Any, out: Any, at: Any, stride: Any
) -> Any:
    bits = x.dtype.bitwidth
    letter = "f" if isinstance(x.dtype, types.Float) else "i"

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, starts_array, first, columns, target, index, step = args
        memory = ir.VectorType(context.get_data_type(x.dtype), COUNT)
        to = context.get_value_type(FLOAT32X16)
        mask = first_lanes(builder, columns, FLOAT32X16)
        rows = []
        for r in range(COUNT):
            place = address_of(
                context, builder, starts, starts_array, ir.Constant(ir.IntType(64), r)
            )
            start = builder.add(builder.load(place), first)
            address = address_of(context, builder, x, array, start)
            pointer = builder.bitcast(address, memory.as_pointer())
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(memory, [pointer.type, ir.IntType(32), mask.type, memory]),
                f"llvm.masked.load.v{COUNT}{letter}{bits}.p0",
            )
            align = ir.Constant(ir.IntType(32), bits // 8)
            value = builder.call(function, [pointer, align, mask, ir.Constant(memory, None)])
            rows.append(widen(builder, x.dtype, value, to))
        for column in _columns(builder, rows):
            address = address_of(context, builder, out, target, index)
            builder.store(column, builder.bitcast(address, to.as_pointer()), align=4)
            index = builder.add(index, step)
        return context.get_dummy_value()

    return types.void(x, starts, *(types.intp,) * 2, out, *(types.intp,) * 2), codegen


@inlined
def transpose(x: Any, starts: Any, offset: int, count: int, out: Any, at: int, stride: int) -> None:
    """Write ``count`` elements of each of 16 rows of ``x``, at most 16, as columns to ``out``.

    Row r begins at ``starts[r] + offset``. Column c goes to ``out[at + c * stride:]``, 16 float32
    long. All 16 columns are written; those after the first ``count`` are 0.
    """
    for r in range(COUNT):
        check(x, starts[r] + offset, count)
    check(out, at, COUNT)
    check(out, at + (COUNT - 1) * stride, COUNT)
    _transpose(x, starts, offset, count, out, at, stride)
