"""Loads and stores of ``Lanes``, whole and in part.

An array's dtype says what its bits are: float32 and float64 are themselves, uint16 holds a
bfloat16's bits and int16 a float16's (``kernels.dtypes``, ``DType.load``). All but float64 are
computed in float32. Under NUMBA_BOUNDSCHECK=1 both ends of every access are checked, as Numba
checks a scalar's.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiled import by_type, inlined
from kernels.simd.lanes import FLOAT32X16, FLOAT64X8, Lanes, int32s, repeat, splat


def compute_lanes(array: Any) -> Lanes:
    return FLOAT64X8 if array.dtype == types.float64 else FLOAT32X16


@by_type
def width(array: Any) -> Any:
    """Number of elements of ``array`` in one ``Lanes``."""
    count = compute_lanes(array).count

    def count_of(array: Any) -> int:
        return count

    return count_of


@by_type
def constant(array: Any, value: Any) -> Any:
    """``value`` in every lane of the type that ``array`` is computed in."""
    scalar = compute_lanes(array).scalar

    def splat_value(array: Any, value: Any) -> Any:
        return splat(scalar(value))

    return splat_value


def address_of(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def widen(builder: Any, dtype: Any, value: Any, to: Any) -> Any:
    if dtype == types.uint16:
        words = ir.VectorType(ir.IntType(32), value.type.count)
        bits = builder.shl(builder.zext(value, words), ir.Constant(words, [16] * words.count))
        return builder.bitcast(bits, to)
    if dtype == types.int16:
        halves = ir.VectorType(ir.HalfType(), value.type.count)
        return builder.fpext(builder.bitcast(value, halves), to)
    return value


def first_lanes(builder: Any, count: Any, lanes: Lanes) -> Any:
    limit = repeat(builder, builder.trunc(count, ir.IntType(32)), lanes.count)
    return builder.icmp_signed("<", int32s(range(lanes.count)), limit)


@intrinsic
def _load(typing: Any, array: Any, index: Any) -> Any:
    lanes = compute_lanes(array)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = ir.VectorType(context.get_data_type(array.dtype), lanes.count)
        address = address_of(context, builder, array, args[0], args[1])
        pointer = builder.bitcast(address, memory.as_pointer())
        value = builder.load(pointer, align=array.dtype.bitwidth // 8)
        return widen(builder, array.dtype, value, context.get_value_type(lanes))

    return lanes(array, types.intp), codegen


@intrinsic
def _load_two(typing: Any, array: Any, index: Any) -> Any:
    lanes = compute_lanes(array)
    pair = types.UniTuple(lanes, 2)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        to = context.get_value_type(lanes)
        if array.dtype == types.uint16:
            words = ir.VectorType(ir.IntType(32), lanes.count)
            both = builder.load(builder.bitcast(address, words.as_pointer()), align=2)
            even = builder.shl(both, ir.Constant(words, [16] * lanes.count))
            odd = builder.and_(both, ir.Constant(words, [0xFFFF0000] * lanes.count))
            halves = [builder.bitcast(even, to), builder.bitcast(odd, to)]
        else:
            memory = ir.VectorType(context.get_data_type(array.dtype), lanes.count)
            low = builder.bitcast(address, memory.as_pointer())
            high = builder.gep(low, [ir.Constant(ir.IntType(32), 1)])
            halves = [
                widen(builder, array.dtype, builder.load(at, align=array.dtype.bitwidth // 8), to)
                for at in (low, high)
            ]
        return context.make_tuple(builder, pair, halves)

    return pair(array, types.intp), codegen


@intrinsic(prefer_literal=True)
def _load_each(typing: Any, array: Any, index: Any, stride: Any, count: Any) -> Any:
    lanes, number = compute_lanes(array), count.literal_value
    several = types.UniTuple(lanes, number)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = ir.VectorType(context.get_data_type(array.dtype), lanes.count)
        to, at, loaded = context.get_value_type(lanes), args[1], []
        for _ in range(number):
            address = address_of(context, builder, array, args[0], at)
            pointer = builder.bitcast(address, memory.as_pointer())
            value = builder.load(pointer, align=array.dtype.bitwidth // 8)
            loaded.append(widen(builder, array.dtype, value, to))
            at = builder.add(at, args[2])
        return context.make_tuple(builder, several, loaded)

    return several(array, types.intp, types.intp, count), codegen


@intrinsic
def _load_first(typing: Any, array: Any, index: Any, count: Any, fill: Any) -> Any:
    lanes = compute_lanes(array)
    bits = array.dtype.bitwidth
    letter = "f" if isinstance(array.dtype, types.Float) else "i"

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = ir.VectorType(context.get_data_type(array.dtype), lanes.count)
        address = address_of(context, builder, array, args[0], args[1])
        pointer = builder.bitcast(address, memory.as_pointer())
        mask = first_lanes(builder, args[2], lanes)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(memory, [pointer.type, ir.IntType(32), mask.type, memory]),
            f"llvm.masked.load.v{lanes.count}{letter}{bits}.p0",
        )
        align = ir.Constant(ir.IntType(32), bits // 8)
        nothing = ir.Constant(memory, None)
        value = builder.call(function, [pointer, align, mask, nothing])
        wide = widen(builder, array.dtype, value, context.get_value_type(lanes))
        return builder.select(mask, wide, args[3])

    return lanes(array, types.intp, types.intp, lanes), codegen


@intrinsic
def _store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        pointer = builder.bitcast(address, args[2].type.as_pointer())
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def _store_first(typing: Any, array: Any, index: Any, count: Any, value: Any) -> Any:
    bits = array.dtype.bitwidth

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        pointer = builder.bitcast(address, args[3].type.as_pointer())
        mask = first_lanes(builder, args[2], value)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [args[3].type, pointer.type, ir.IntType(32), mask.type]),
            f"llvm.masked.store.v{value.count}f{bits}.p0",
        )
        align = ir.Constant(ir.IntType(32), bits // 8)
        builder.call(function, [args[3], pointer, align, mask])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), codegen


@intrinsic
def keep_first(typing: Any, value: Any, count: Any, fill: Any) -> Any:
    """Select the first ``count`` lanes of ``value``, then those of ``fill``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(first_lanes(builder, args[1], value), args[0], args[2])

    return value(value, types.intp, value), codegen


@intrinsic
def less_at(typing: Any, value: Any, lane: Any, amount: Any) -> Any:
    """Subtract ``amount`` from one ``lane`` of ``value``, or from none beyond its lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        own = builder.icmp_signed(
            "==",
            int32s(range(value.count)),
            repeat(builder, builder.trunc(args[1], ir.IntType(32)), value.count),
        )
        return builder.select(own, builder.fsub(args[0], args[2]), args[0])

    return value(value, types.intp, value), codegen


@intrinsic
def _element(typing: Any, array: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(address_of(context, builder, array, args[0], args[1]))
        one = builder.bitcast(value, ir.VectorType(value.type, 1))
        to = ir.VectorType(context.get_value_type(compute_lanes(array).scalar), 1)
        wide = widen(builder, array.dtype, one, to)
        scalar = builder.extract_element(wide, ir.Constant(ir.IntType(32), 0))
        return context.cast(builder, scalar, compute_lanes(array).scalar, types.float64)

    return types.float64(array, types.intp), codegen


if config.BOUNDSCHECK:

    @inlined
    def check(array: Any, index: int, count: int) -> None:
        if count > 0 and not (index >= 0 and index + count <= array.size):
            raise IndexError("lanes are out of bounds")

else:

    @inlined
    def check(array: Any, index: int, count: int) -> None:
        pass


@inlined
def element(array: Any, index: int) -> float:
    """Load one element as a float64, exactly."""
    check(array, index, 1)
    return _element(array, index)


@inlined
def load(array: Any, index: int) -> Any:
    """Load ``width(array)`` elements from ``index`` on."""
    check(array, index, width(array))
    return _load(array, index)


@inlined
def load_two(array: Any, index: int) -> Any:
    """Load twice ``width(array)`` elements from ``index`` on, as two ``Lanes``, in any order.

    Those of bfloat16 are the even and the odd elements: two instructions, where order takes four.
    """
    check(array, index, 2 * width(array))
    return _load_two(array, index)


def loader_of(count: int) -> Any:
    """Function that loads ``width(array)`` elements from ``index`` on and from each of the
    ``count`` - 1 strides after it, as a tuple.
    """

    @inlined
    def load_each(array: Any, index: int, stride: int) -> Any:
        for k in range(count):
            check(array, index + k * stride, width(array))
        return _load_each(array, index, stride, count)

    return load_each


@inlined
def load_first(array: Any, index: int, count: int, fill: Any) -> Any:
    """Load ``count`` elements from ``index`` on, then ``fill``; reads no memory beyond them."""
    check(array, index, min(count, width(array)))
    return _load_first(array, index, count, fill)


@inlined
def store(array: Any, index: int, value: Any) -> None:
    """Write all lanes to ``array`` (of the lanes' own scalar) from ``index`` on."""
    check(array, index, width(array))
    _store(array, index, value)


@inlined
def store_first(array: Any, index: int, count: int, value: Any) -> None:
    """Write the first ``count`` lanes from ``index`` on, and nothing beyond them."""
    check(array, index, min(count, width(array)))
    _store_first(array, index, count, value)
