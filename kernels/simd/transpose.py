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


def _swapped(builder: Any, rows: list[Any], bit: int) -> list[Any]:
    """Exchange the index bit ``bit`` of rows with that of lanes: a step of a transposition."""
    swapped = list(rows)
    low = int32s([i + (COUNT - bit if i & bit else 0) for i in range(COUNT)])
    high = int32s([i + (COUNT if i & bit else bit) for i in range(COUNT)])
    for r in range(COUNT):
        if not r & bit:
            a, b = rows[r], rows[r | bit]
            swapped[r] = builder.shuffle_vector(a, b, low)
            swapped[r | bit] = builder.shuffle_vector(a, b, high)
    return swapped


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
        for bit in (1, 2, 4, 8):
            rows = _swapped(builder, rows, bit)
        for row in rows:
            address = address_of(context, builder, out, target, index)
            builder.store(row, builder.bitcast(address, to.as_pointer()), align=4)
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
