"""Prefetching of memory before its use, and the order of loads."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiled import by_type
from kernels.simd.memory import address_of

# Bytes from a load to its prefetch in one long stream, by the element's size: as much as a fifth of
# a small L1. In rows of 32000 classes, one thread took 3.73 us a float32 row with 2048, 3.42 with
# 4096, and 3.30 with 6144 to 10240; a plain read took 3.24 (EPYC, family 26). The loops of 16-bit
# logits take longer: 2.06 us a bfloat16 row with 4096, 1.91 with 8192, 1.88 with 10240 and 12288.
AHEAD = {64: 8192, 32: 8192, 16: 10240}
# Bytes of a turn of such a loop, whose prefetches come first: one line in each quarter of a turn of
# twice the bytes took a tenth longer.
TURN = 512
_LINE = 64


@by_type
def ahead(array: Any) -> Any:
    """``AHEAD`` in elements of ``array``."""
    count = AHEAD[array.dtype.bitwidth] * 8 // array.dtype.bitwidth

    def count_of(array: Any) -> int:
        return count

    return count_of


@by_type
def turn(array: Any) -> Any:
    """``TURN`` in elements of ``array``."""
    count = TURN * 8 // array.dtype.bitwidth

    def count_of(array: Any) -> int:
        return count

    return count_of


def _prefetch(builder: Any, address: Any) -> None:
    word, byte = ir.IntType(32), ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [byte, word, word, word]),
        "llvm.prefetch.p0",
    )
    read, keep, data = ir.Constant(word, 0), ir.Constant(word, 3), ir.Constant(word, 1)
    builder.call(function, [builder.bitcast(address, byte), read, keep, data])


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Prefetch the cache line of ``index``; beyond the array's end that is harmless."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        _prefetch(builder, address)
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def prefetch_turn(typing: Any, array: Any, index: Any) -> Any:
    """``prefetch`` of the ``TURN`` bytes from ``index`` on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = address_of(context, builder, array, args[0], args[1])
        for line in range(0, TURN * 8, _LINE * 8):
            offset = ir.Constant(ir.IntType(64), line // array.dtype.bitwidth)
            _prefetch(builder, builder.gep(first, [offset]))
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def address_at(typing: Any, array: Any, index: Any) -> Any:
    """Address of ``index``, for ``prefetch_at``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        return builder.ptrtoint(address, ir.IntType(64))

    return types.intp(array, types.intp), codegen


@intrinsic
def prefetch_at(typing: Any, address: Any) -> Any:
    """``prefetch`` of an array whose type the caller need not be compiled for."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _prefetch(builder, builder.inttoptr(args[0], ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def loads_after(typing: Any) -> Any:
    """Keep the compiler from moving loads across this place; it is no instruction.

    LLVM loaded all registers of a turn at its beginning, and kept sums on the stack meanwhile.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("acq_rel", "singlethread")
        return context.get_dummy_value()

    return types.void(), codegen
