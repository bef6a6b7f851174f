"""Comparisons of lanes as the bits of an integer, and the bits of that."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiled import inlined
from kernels.simd.lanes import Lanes, compared
from kernels.simd.memory import address_of, check

_WORD = ir.IntType(64)


def _bits(comparison: str) -> Any:
    @intrinsic
    def compare(typing: Any, a: Lanes, b: Lanes) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            lanes = compared(builder, comparison, *args)
            return builder.zext(builder.bitcast(lanes, ir.IntType(a.count)), _WORD)

        return types.int64(a, b), codegen

    return compare


def _of_bits(name: str, *more: ir.Constant) -> Any:
    @intrinsic
    def count(typing: Any, bits: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.FunctionType(_WORD, [_WORD, *(value.type for value in more)])
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            return builder.call(function, [args[0], *more])

        return types.int64(types.int64), codegen

    return count


# Bit i is set where lane i of the first register is at least, or above, that of the second; it is
# clear where either is NaN.
at_least = _bits(">=")
above = _bits(">")
# Number of bits that are set, and the index of the lowest of them (64 where there is none).
bits_set = _of_bits("llvm.ctpop.i64")
lowest_bit = _of_bits("llvm.cttz.i64", ir.Constant(ir.IntType(1), 0))


@intrinsic
def _not_zero(typing: Any, array: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, bits = ir.VectorType(ir.IntType(32), _WORD.width), ir.IntType(_WORD.width)
        address = address_of(context, builder, array, args[0], args[1])
        words = builder.load(builder.bitcast(address, kind.as_pointer()), align=4)
        return builder.bitcast(builder.icmp_signed("!=", words, ir.Constant(kind, None)), bits)

    return types.int64(array, types.intp), codegen


@inlined
def not_zero(array: Any, index: int) -> int:
    """Bit i is set where element i of the 64 from ``index`` on of a uint32 array is not 0."""
    check(array, index, 64)
    return _not_zero(array, index)
