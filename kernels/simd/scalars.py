"""Indexes that are known not to be negative, and scalars of arrays at these.

Numba tests each index for counting from the end, which is four instructions an access.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.compiled import inlined
from kernels.simd.memory import address_of, check


@intrinsic
def _get(typing: Any, array: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        return builder.load(address)

    return array.dtype(array, types.intp), codegen


@intrinsic
def _put(typing: Any, array: Any, index: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        builder.store(args[2], address)
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), codegen


@inlined
def get(array: Any, index: int) -> Any:
    """``array[index]``."""
    check(array, index, 1)
    return _get(array, index)


@inlined
def put(array: Any, index: int, value: Any) -> None:
    """``array[index] = value``."""
    check(array, index, 1)
    _put(array, index, value)


@intrinsic
def unknown(typing: Any, index: Any) -> Any:
    """Return ``index``, which LLVM then knows nothing of; it is no instruction.

    From an index that grows by the same each time, LLVM makes one that it adds to for each address
    that is computed of it: for 16 rows these were on the stack, and took a tenth of the time of
    rows of 4 classes.
    """
    word = ir.IntType(64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(ir.InlineAsm(ir.FunctionType(word, [word]), "", "=r,0"), args)

    return types.intp(types.intp), codegen
