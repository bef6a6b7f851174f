"""Scalars of arrays at indexes that are known not to be negative.

Numba tests each index for counting from the end, which is four instructions an access.
"""

from __future__ import annotations

from typing import Any

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
