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


def _columns(builder: Any, rows: list[Any]) -> list[Any]:
    """Columns of a 16 x 16 matrix: 64 shuffles of one instruction each."""
    fours = []
    for g in range(0, COUNT, 4):
        low, high = (_unpacked(builder, rows[g + r], rows[g + r + 1], 1) for r in (0, 2))
        # fours[g][j] has elements 4 * q + j of rows g to g + 3 in quarter q.
        fours.append([each for k in (0, 1) for each in _unpacked(builder, low[k], high[k], 2)])
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
