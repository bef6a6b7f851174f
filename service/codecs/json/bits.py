"""Machine instructions that Numba has no name for, on 64-bit words."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# For constants too: Numba makes a float64 of a sum of int64 and uint64.
U64 = np.uint64

_WORD, _DOUBLE_WORD = ir.IntType(64), ir.IntType(128)
_ZERO_IS_DEFINED = ir.Constant(ir.IntType(1), 0)


@intrinsic
def product(typing: Any, a: Any, b: Any) -> Any:
    """Return the high and the low word of a * b, of uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = builder.mul(*(builder.zext(arg, _DOUBLE_WORD) for arg in args))
        high = builder.lshr(whole, ir.Constant(_DOUBLE_WORD, 64))
        words = [builder.trunc(half, _WORD) for half in (high, whole)]
        return context.make_tuple(builder, signature.return_type, words)

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), codegen


@intrinsic
def leading_zeros(typing: Any, word: Any) -> Any:
    """Count zero bits of a uint64 at one end; 64 for zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], _ZERO_IS_DEFINED)

    return types.int64(types.uint64), codegen


@intrinsic
def trailing_zeros(typing: Any, word: Any) -> Any:
    """Count zero bits of a uint64 at one end; 64 for zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], _ZERO_IS_DEFINED)

    return types.int64(types.uint64), codegen


@intrinsic
def from_bits(typing: Any, bits: Any) -> Any:
    """Return the float64 with these bits, a uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), codegen


@intrinsic
def to_bits(typing: Any, value: Any) -> Any:
    """Return the bits of a float64 as uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _WORD)

    return types.uint64(types.float64), codegen
