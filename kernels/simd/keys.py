"""Integer keys in the order of floats: comparisons of 16-bit ones take half as many registers.

The bits of a float as a signed integer, with all but the sign inverted where that is set, are in
the order of the floats: -1 is the key of -0.0, 0 that of 0.0, and NaNs are beyond the infinities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiled import by_type, inlined
from kernels.simd.lanes import INT16X32, INT64X8, Lanes, repeat
from kernels.simd.masks import bits_set
from kernels.simd.memory import address_of, check

_LANES = {16: INT16X32, 32: Lanes(types.int32, 16)}
# Below all keys but those of NaNs.
LEAST_KEY = -(2**31)
_LONG = ir.IntType(64)
_CLASSES = 0xFFFFFFFF
# Below all sort keys, and the number of them in a register.
NO_KEY = np.int64(-(2**63))
SORTED = INT64X8.count


def ordered(builder: Any, bits: Any, kind: Any, constant: Any) -> Any:
    """Keys of the floats with these ``bits``, scalars or vectors; and the bits of such keys."""
    width = (kind.element if isinstance(kind, ir.VectorType) else kind).width
    signs = builder.ashr(bits, constant(width - 1))
    return builder.xor(bits, builder.and_(signs, constant((1 << (width - 1)) - 1)))


@intrinsic
def _load_keys(typing: Any, array: Any, index: Any) -> Any:
    lanes = _LANES[array.dtype.bitwidth]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(lanes)
        address = address_of(context, builder, array, args[0], args[1])
        bits = builder.load(
            builder.bitcast(address, kind.as_pointer()), align=kind.element.width // 8
        )
        return ordered(builder, bits, kind, lambda each: ir.Constant(kind, [each] * kind.count))

    return lanes(array, types.intp), codegen


@intrinsic
def _load_key(typing: Any, array: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.IntType(array.dtype.bitwidth)
        address = address_of(context, builder, array, args[0], args[1])
        bits = builder.load(builder.bitcast(address, kind.as_pointer()), align=kind.width // 8)
        return builder.sext(
            ordered(builder, bits, kind, lambda each: ir.Constant(kind, each)), _LONG
        )

    return types.int64(array, types.intp), codegen


@intrinsic
def least_keys(typing: Any, array: Any) -> Any:
    """A register of the least integers, for ``larger_keys`` to start from."""
    lanes = _LANES[array.dtype.bitwidth]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(lanes)
        return ir.Constant(kind, [-(1 << (kind.element.width - 1))] * kind.count)

    return lanes(array), codegen


@intrinsic
def larger_keys(typing: Any, a: Any, b: Any) -> Any:
    """The larger key in each lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed(">", *args), *args)

    return a(a, b), codegen


@intrinsic
def largest_key(typing: Any, keys: Any) -> Any:
    """The largest key of all lanes, as int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        name = f"llvm.vector.reduce.smax.v{kind.count}i{kind.element.width}"
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind.element, [kind]), name
        )
        return builder.sext(builder.call(function, args), _LONG)

    return types.int64(keys), codegen


@intrinsic
def keys_at_least(typing: Any, keys: Any, bar: Any) -> Any:
    """Bit i is set where the key in lane i is at least ``bar``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        bars = repeat(builder, builder.trunc(args[1], kind.element), kind.count)
        lanes = builder.icmp_signed(">=", args[0], bars)
        return builder.zext(builder.bitcast(lanes, ir.IntType(kind.count)), _LONG)

    return types.int64(keys, types.int64), codegen


@by_type
def load_keys(array: Any, index: Any) -> Any:
    """Keys of ``key_count(array)`` elements from ``index`` on."""
    count = _LANES[array.dtype.bitwidth].count

    def load(array: Any, index: Any) -> Any:
        check(array, index, count)
        return _load_keys(array, index)

    return load


@by_type
def key_count(array: Any) -> Any:
    """Number of keys in a register."""
    count = _LANES[array.dtype.bitwidth].count

    def count_of(array: Any) -> int:
        return count

    return count_of


@by_type
def key_at(array: Any, index: Any) -> Any:
    """Key of one element, as int64."""

    def key_of(array: Any, index: Any) -> int:
        check(array, index, 1)
        return _load_key(array, index)

    return key_of


@by_type
def compare_keys(array: Any, index: Any, bar: Any, largest: Any) -> Any:
    """``(largest, count)``: the larger of ``largest`` and the keys of 32 elements from ``index``
    on, and how many of these are at least ``bar``.
    """
    if array.dtype.bitwidth == 16:

        def compare(array: Any, index: Any, bar: Any, largest: Any) -> Any:
            keys = load_keys(array, index)
            return larger_keys(keys, largest), bits_set(keys_at_least(keys, bar))

        return compare

    def compare_two(array: Any, index: Any, bar: Any, largest: Any) -> Any:
        keys, more = load_keys(array, index), load_keys(array, index + 16)
        count = bits_set(keys_at_least(keys, bar)) + bits_set(keys_at_least(more, bar))
        return larger_keys(more, larger_keys(keys, largest)), count

    return compare_two


@intrinsic
def _bits_at(typing: Any, array: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        return builder.zext(builder.load(address), _LONG)

    return types.int64(array, types.intp), codegen


@by_type
def sort_key(array: Any, index: Any, c: Any) -> Any:
    """Key of one element and its class ``c``, as int64: of equal elements, the first class has the
    largest. A 16-bit float has to be above 0.
    """

    def of_bits(array: Any, index: Any, c: Any) -> int:
        check(array, index, 1)
        return (_bits_at(array, index) << 32) | (_CLASSES - c)

    def of_key(array: Any, index: Any, c: Any) -> int:
        own = key_at(array, index)
        return ((own + (own == -1)) << 32) | (_CLASSES - c)

    return of_bits if array.dtype.bitwidth == 16 else of_key


@inlined
def class_of(key: int) -> int:
    """The class of a ``sort_key``."""
    return _CLASSES - (key & _CLASSES)


@intrinsic
def _load_sort_keys(typing: Any, keys: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(INT64X8)
        address = address_of(context, builder, keys, args[0], args[1])
        return builder.load(builder.bitcast(address, kind.as_pointer()), align=8)

    return INT64X8(keys, types.intp), codegen


@inlined
def load_sort_keys(keys: Any, index: int) -> Any:
    """Eight of an array of sort keys, from ``index`` on."""
    check(keys, index, SORTED)
    return _load_sort_keys(keys, index)


@intrinsic
def _store_sort_keys(typing: Any, keys: Any, index: Any, lanes: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, keys, args[0], args[1])
        builder.store(args[2], builder.bitcast(address, args[2].type.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(keys, types.intp, lanes), codegen


@inlined
def store_sort_keys(keys: Any, index: int, lanes: Any) -> None:
    """Write eight int64 to an array of them."""
    check(keys, index, SORTED)
    _store_sort_keys(keys, index, lanes)
