"""Sums and maxima across the lanes of registers, in a fixed order; lanes of two in turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from kernels.simd.lanes import FLOAT64X8, Lanes, chosen, int32s, undefined


def _across(emit: Callable[..., Any]) -> Any:
    """Intrinsic that folds lanes to a scalar, halves on halves: a fixed order."""

    @intrinsic
    def fold(typing: Any, lanes: Lanes) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value, count = args[0], lanes.count
            while count > 1:
                count //= 2
                low = builder.shuffle_vector(value, undefined(value.type), int32s(range(count)))
                high = builder.shuffle_vector(
                    value, undefined(value.type), int32s(range(count, 2 * count))
                )
                value = emit(builder, low, high)
            return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

        return lanes.scalar(lanes), codegen

    return fold


sum_across = _across(lambda b, x, y: b.fadd(x, y))
max_across = _across(chosen(">"))
min_across = _across(chosen("<"))


def _in_pairs(emit: Callable[..., Any]) -> Any:
    """Intrinsic that folds lanes that differ in one ``bit``: see ``pair_sums``."""

    @intrinsic(prefer_literal=True)
    def fold(typing: Any, a: Any, b: Any, bit: Any) -> Any:
        mask = bit.literal_value

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source = [a.count if i & mask else 0 for i in range(a.count)]
            clear = int32s([(i & ~mask) + source[i] for i in range(a.count)])
            both = int32s([(i | mask) + source[i] for i in range(a.count)])
            return emit(
                builder,
                builder.shuffle_vector(args[0], args[1], clear),
                builder.shuffle_vector(args[0], args[1], both),
            )

        return a(a, b, bit), codegen

    return fold


# Sums of lanes that differ in ``bit`` only: of ``a`` where it is clear, of ``b`` where set. Over
# bits 1, 2, 4, ... this folds as many registers as one has lanes into one register of their sums,
# in order, for three instructions a register. Likewise the maxima, as ``maximum`` takes NaN.
pair_sums = _in_pairs(lambda b, x, y: b.fadd(x, y))
pair_maxima = _in_pairs(chosen(">"))


def _merged(first: int) -> Any:
    @intrinsic
    def merged(typing: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            half = range(first, first + a.count // 2)
            return builder.shuffle_vector(
                *args, int32s([lane + source for lane in half for source in (0, a.count)])
            )

        return a(a, b), codegen

    return merged


# Lanes of ``a`` and ``b`` in turns, from their low and from their high halves.
merge_low, merge_high = _merged(0), _merged(FLOAT64X8.count // 2)
