"""Registers for maxima of logits and for comparisons with a bar.

Those of 16-bit floats hold their bits, twice as many as float32 lanes. As signed integers, bits of
floats that are not negative are in the order of the floats, and those of negative floats are below
them, in the wrong order: a maximum below 0 says no more than that nothing reached 0, unless it was
taken of keys (``keys``). Other types have their lanes. A scalar of such a register, such as a bar,
is a key of 16-bit floats, and a float of others; ``value_of`` gives the float that it stands for.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiled import by_type
from kernels.simd.keys import ordered
from kernels.simd.lanes import INT16X32, maximum, repeat, splat
from kernels.simd.memory import (
    address_of,
    check,
    compute_lanes,
    constant,
    first_lanes,
    load,
    load_first,
    widen,
    width,
)
from kernels.simd.scalars import get

_WORD = ir.IntType(16)
# Below the keys of all floats but NaN, and below the bits of all but NaN and -0.
_LOWEST = np.int16(-(1 << 15))


def _narrow(array: Any) -> bool:
    return bool(array.dtype.bitwidth == 16)


@intrinsic
def _load_words(typing: Any, array: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(INT16X32)
        address = address_of(context, builder, array, args[0], args[1])
        size = array.dtype.bitwidth // 8
        return builder.load(builder.bitcast(address, kind.as_pointer()), align=size)

    return INT16X32(array, types.intp), codegen


@intrinsic
def _load_first_words(typing: Any, array: Any, index: Any, count: Any) -> Any:
    """``count`` words from ``index`` on, then those whose key is the lowest."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(INT16X32)
        address = address_of(context, builder, array, args[0], args[1])
        pointer = builder.bitcast(address, kind.as_pointer())
        mask = first_lanes(builder, args[2], INT16X32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(kind, [pointer.type, ir.IntType(32), mask.type, kind]),
            f"llvm.masked.load.v{kind.count}i16.p0",
        )
        fill = ir.Constant(kind, [-1] * kind.count)
        return builder.call(function, [pointer, ir.Constant(ir.IntType(32), 2), mask, fill])

    return INT16X32(array, types.intp, types.intp), codegen


@intrinsic
def _keys_of(typing: Any, words: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        return ordered(builder, args[0], kind, lambda each: ir.Constant(kind, [each] * kind.count))

    return words(words), codegen


@intrinsic
def _value_of_key(typing: Any, array: Any, key: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        key = builder.trunc(args[1], _WORD)
        bits = ordered(builder, key, _WORD, lambda each: ir.Constant(_WORD, each))
        lane = widen(
            builder, array.dtype, repeat(builder, bits, 1), ir.VectorType(ir.FloatType(), 1)
        )
        value = builder.extract_element(lane, ir.Constant(ir.IntType(32), 0))
        return builder.fpext(value, ir.DoubleType())

    return types.float64(array, types.int64), codegen


@by_type
def span(array: Any) -> Any:
    """Number of elements in a register."""
    count = INT16X32.count if _narrow(array) else compute_lanes(array).count

    def count_of(array: Any) -> int:
        return count

    return count_of


@by_type
def load_compared(array: Any, index: Any) -> Any:
    """``span`` elements from ``index`` on."""

    def words(array: Any, index: Any) -> Any:
        check(array, index, span(array))
        return _load_words(array, index)

    def lanes(array: Any, index: Any) -> Any:
        return load(array, index)

    return words if _narrow(array) else lanes


@by_type
def load_first_compared(array: Any, index: Any, count: Any) -> Any:
    """``count`` elements from ``index`` on, at most ``span``, then some below all others."""

    def words(array: Any, index: Any, count: Any) -> Any:
        check(array, index, min(count, span(array)))
        return _load_first_words(array, index, count)

    def lanes(array: Any, index: Any, count: Any) -> Any:
        return load_first(array, index, count, constant(array, -math.inf))

    return words if _narrow(array) else lanes


@by_type
def load_first_ordered(array: Any, index: Any, count: Any) -> Any:
    """``load_first_compared``, but as keys where those are known below 0 too."""

    def words(array: Any, index: Any, count: Any) -> Any:
        return _keys_of(load_first_compared(array, index, count))

    def lanes(array: Any, index: Any, count: Any) -> Any:
        return load_first_compared(array, index, count)

    return words if _narrow(array) else lanes


@by_type
def load_maxima(array: Any, maxima: Any, index: Any) -> Any:
    """The register at ``index`` of ``maxima``, reals of the type that ``array`` is computed in."""

    def words(array: Any, maxima: Any, index: Any) -> Any:
        check(maxima, index, width(maxima))
        return _load_words(maxima, index)

    def lanes(array: Any, maxima: Any, index: Any) -> Any:
        return load(maxima, index)

    return words if _narrow(array) else lanes


@by_type
def raised(array: Any, index: Any, two: Any, largest: Any) -> Any:
    """``largest`` of before and of ``two`` registers that ``load_two`` loaded from ``index``."""

    def words(array: Any, index: Any, two: Any, largest: Any) -> Any:
        return maximum(load_compared(array, index), largest)

    def lanes(array: Any, index: Any, two: Any, largest: Any) -> Any:
        return maximum(two[1], maximum(two[0], largest))

    return words if _narrow(array) else lanes


@intrinsic
def _word_of(typing: Any, registers: Any, lane: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, registers, args[0], ir.Constant(ir.IntType(64), 0))
        word = builder.gep(builder.bitcast(address, _WORD.as_pointer()), [args[1]])
        return builder.sext(builder.load(word), ir.IntType(64))

    return types.int64(registers, types.intp), codegen


@by_type
def lane_of(array: Any, registers: Any, lane: Any) -> Any:
    """Lane ``lane`` of the first register stored in ``registers``, a small whole number."""

    def of_words(array: Any, registers: Any, lane: Any) -> int:
        check(registers, 0, width(registers))
        return _word_of(registers, lane)

    def of_lanes(array: Any, registers: Any, lane: Any) -> int:
        return int(get(registers, lane))

    return of_words if _narrow(array) else of_lanes


@by_type
def lowest(array: Any) -> Any:
    """The scalar that all elements reach."""

    def key(array: Any) -> Any:
        return _LOWEST

    def value(array: Any) -> float:
        return -math.inf

    return key if _narrow(array) else value


@by_type
def spread(array: Any, scalar: Any) -> Any:
    """``scalar`` in every lane of a register."""

    def words(array: Any, scalar: Any) -> Any:
        return splat(np.int16(scalar))

    def lanes(array: Any, scalar: Any) -> Any:
        return constant(array, scalar)

    return words if _narrow(array) else lanes


@by_type
def halfway(array: Any, low: Any, high: Any) -> Any:
    """A scalar between two."""

    def key(array: Any, low: Any, high: Any) -> int:
        return (low + high + 1) >> 1

    def value(array: Any, low: Any, high: Any) -> float:
        return 0.5 * low + 0.5 * high

    return key if _narrow(array) else value


@by_type
def value_of(array: Any, scalar: Any) -> Any:
    """The float that a scalar stands for."""

    def of_key(array: Any, scalar: Any) -> float:
        return _value_of_key(array, scalar) if scalar > _LOWEST else -math.inf

    def same(array: Any, scalar: Any) -> float:
        return float(scalar)

    return of_key if _narrow(array) else same


@by_type
def knows_negatives(array: Any) -> Any:
    """False where maxima below 0 are not known."""
    known = not _narrow(array)

    def knows(array: Any) -> bool:
        return known

    return knows
