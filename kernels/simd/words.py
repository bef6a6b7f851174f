"""Maxima of 16-bit floats by their bits: an instruction for twice as many as float32 lanes hold.

As signed integers, bits of floats that are not negative are in the order of the floats, and those
of negative floats are below them, in the wrong order. So a maximum that is negative says no more
than that nothing reached 0.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.compiled import by_type
from kernels.simd.lanes import FLOAT32X16, Lanes, int32s, maximum, repeat, where_greater
from kernels.simd.masks import at_least
from kernels.simd.memory import address_of, check, constant, load, widen, width

# Elements that ``reaching`` compares.
REACH = 64
_WORDS = Lanes(types.int16, 32)
_WORD = ir.IntType(16)


def _narrow(array: Any) -> bool:
    return bool(array.dtype.bitwidth == 16)


@intrinsic
def _no_words(typing: Any, array: Any) -> Any:
    """The bits of -inf, the largest of negative words but for NaNs: ``maximum`` would keep NaN."""
    lowest = -0x80 if array.dtype == types.uint16 else -0x400

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return repeat(builder, ir.Constant(_WORD, lowest), _WORDS.count)

    return _WORDS(array), codegen


@intrinsic
def _load_words(typing: Any, array: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(_WORDS)
        address = address_of(context, builder, array, args[0], args[1])
        return builder.load(builder.bitcast(address, kind.as_pointer()), align=2)

    return _WORDS(array, types.intp), codegen


@intrinsic
def _larger_words(typing: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed(">", *args), *args)

    return _WORDS(a, b), codegen


def _half(first: int) -> Any:
    @intrinsic
    def half(typing: Any, array: Any, words: Any) -> Any:
        """Every other word as float32 lanes, by the dtype of ``array``."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if array.dtype == types.uint16:  # a shift or a mask for three shuffles
                words = ir.VectorType(ir.IntType(32), FLOAT32X16.count)
                both = builder.bitcast(args[1], words)
                if first:
                    part = builder.and_(both, ir.Constant(words, [0xFFFF0000] * words.count))
                else:
                    part = builder.shl(both, ir.Constant(words, [16] * words.count))
                return builder.bitcast(part, context.get_value_type(FLOAT32X16))
            kept = int32s(range(first, _WORDS.count, 2))
            part = builder.shuffle_vector(args[1], args[1], kept)
            return widen(builder, array.dtype, part, context.get_value_type(FLOAT32X16))

        return FLOAT32X16(array, words), codegen

    return half


_even, _odd = _half(0), _half(1)


@by_type
def no_maximum(array: Any) -> Any:
    """A value for ``raised`` to start from."""
    if _narrow(array):

        def no_words(array: Any) -> Any:
            return _no_words(array)

        return no_words

    def lowest(array: Any) -> Any:
        return constant(array, -math.inf)

    return lowest


@by_type
def raised(array: Any, index: Any, one: Any, other: Any, largest: Any) -> Any:
    """``largest`` of before and of two registers, ``one`` and ``other``, loaded from ``index``."""
    if _narrow(array):

        def raised_words(array: Any, index: Any, one: Any, other: Any, largest: Any) -> Any:
            check(array, index, 2 * width(array))
            return _larger_words(largest, _load_words(array, index))

        return raised_words

    def raised_lanes(array: Any, index: Any, one: Any, other: Any, largest: Any) -> Any:
        return maximum(other, maximum(one, largest))

    return raised_lanes


@by_type
def as_lanes(array: Any, largest: Any) -> Any:
    """Maxima as lanes; -inf where that of 16-bit floats is below 0, and so not known."""
    if _narrow(array):

        def words_as_lanes(array: Any, largest: Any) -> Any:
            lanes = maximum(_even(array, largest), _odd(array, largest))
            return where_greater(constant(array, 0.0), lanes, constant(array, -math.inf), lanes)

        return words_as_lanes

    def same(array: Any, largest: Any) -> Any:
        return largest

    return same


@intrinsic
def _words_at_least(typing: Any, words: Any, bar: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bars = repeat(builder, builder.trunc(args[1], _WORD), _WORDS.count)
        lanes = builder.icmp_signed(">=", args[0], bars)
        bits = builder.bitcast(lanes, ir.IntType(_WORDS.count))
        return builder.zext(bits, ir.IntType(64))

    return types.int64(words, types.int64), codegen


@intrinsic
def _half_bits(typing: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        half = builder.fptrunc(builder.fptrunc(args[0], ir.FloatType()), ir.HalfType())
        return builder.zext(builder.bitcast(half, _WORD), ir.IntType(64))

    return types.int64(types.float64), codegen


@intrinsic
def _float_bits(typing: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(builder.fptrunc(args[0], ir.FloatType()), ir.IntType(32))
        return builder.zext(bits, ir.IntType(64))

    return types.int64(types.float64), codegen


@by_type
def bar_of(array: Any, value: Any) -> Any:
    """``value`` as ``reaching`` compares with it: for 16-bit floats the bits of one that is
    positive, at most ``value`` and next to it; for others lanes.
    """
    if array.dtype == types.uint16:

        def bfloat16_bits(array: Any, value: Any) -> int:
            return _float_bits(value) >> 16

        return bfloat16_bits
    if _narrow(array):

        def float16_bits(array: Any, value: Any) -> int:
            return max(_half_bits(value) - 1, 0)

        return float16_bits

    def lanes(array: Any, value: Any) -> Any:
        return constant(array, value)

    return lanes


@by_type
def reaching(array: Any, index: Any, bar: Any) -> Any:
    """Bit i is set where element i of the REACH from ``index`` on is at least ``bar``, from
    ``bar_of``; NaN is not told from large ones among 16-bit floats.
    """
    if _narrow(array):

        def reaching_words(array: Any, index: Any, bar: Any) -> int:
            check(array, index, REACH)
            low = _words_at_least(_load_words(array, index), bar)
            return low | _words_at_least(_load_words(array, index + REACH // 2), bar) << 32

        return reaching_words
    if array.dtype == types.float64:

        def reaching_float64s(array: Any, index: Any, bar: Any) -> int:
            bits = 0
            for i in range(0, REACH, width(array)):
                bits |= at_least(load(array, index + i), bar) << i
            return bits

        return reaching_float64s

    def reaching_float32s(array: Any, index: Any, bar: Any) -> int:
        low = at_least(load(array, index), bar) | at_least(load(array, index + 16), bar) << 16
        high = at_least(load(array, index + 32), bar) | at_least(load(array, index + 48), bar) << 16
        return low | high << 32

    return reaching_float32s


@by_type
def knows_negatives(array: Any) -> Any:
    """False where maxima below 0 are not known."""
    known = not _narrow(array)

    def knows(array: Any) -> bool:
        return known

    return knows
