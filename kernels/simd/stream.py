"""Prefetching of memory before its use."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiled import by_type
from kernels.simd.memory import address_of

# Bytes from a load to its prefetch in one long stream, by the element's size. With 32000 classes
# and two threads, 2048 bytes ran at 0.98 of a plain read's speed in float32 (1024: 0.93, 4096:
# 0.80), and 4096 at 0.77 in bfloat16 (512: 0.53, 2048: 0.54), whose loop takes twice as long.
AHEAD = {64: 2048, 32: 2048, 16: 4096}


@by_type
def ahead(array: Any) -> Any:
    """``AHEAD`` in elements of ``array``."""
    count = AHEAD[array.dtype.bitwidth] * 8 // array.dtype.bitwidth

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
