"""Class indices as float32 lanes, proved in range as they are loaded."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiled import by_type, inlined
from kernels.simd.lanes import FLOAT32X16, Lanes, repeat
from kernels.simd.memory import address_of, check, first_lanes

COUNT = FLOAT32X16.count


def _wide(builder: Any, array: Any, value: Any, mask: Any) -> Any:
    """Labels as int64 vectors: sign-extended, then without the bits that ``mask`` clears."""
    wide = ir.VectorType(ir.IntType(64), COUNT)
    if array.dtype.bitwidth < 64:
        value = builder.sext(value, wide)
    return builder.and_(value, repeat(builder, mask, COUNT))


@intrinsic
def _prove(
    typing: Any, array: Any, index: Any, count: Any, classes: Any, mask: Any, ignores: Any,
    ignored: Any,
) -> Any:  # fmt: skip
    bits = array.dtype.bitwidth
    result = types.Tuple((FLOAT32X16, types.int64))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = ir.VectorType(ir.IntType(bits), COUNT)
        address = address_of(context, builder, array, args[0], args[1])
        pointer = builder.bitcast(address, memory.as_pointer())
        some = first_lanes(builder, args[2], FLOAT32X16)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(memory, [pointer.type, ir.IntType(32), some.type, memory]),
            f"llvm.masked.load.v{COUNT}i{bits}.p0",
        )
        whole = builder.icmp_signed(">=", args[2], ir.Constant(args[2].type, COUNT))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                loaded = builder.load(pointer, align=bits // 8)
                then_block = builder.block
            with otherwise:
                align = ir.Constant(ir.IntType(32), bits // 8)
                partly = builder.call(function, [pointer, align, some, ir.Constant(memory, None)])
                other_block = builder.block
        value = builder.phi(memory)
        value.add_incoming(loaded, then_block)
        value.add_incoming(partly, other_block)
        wide = _wide(builder, array, value, args[4])
        known = builder.icmp_unsigned("<", wide, repeat(builder, args[3], COUNT))
        given = builder.icmp_signed("==", wide, repeat(builder, args[6], COUNT))
        ignores = context.cast(builder, args[5], types.boolean, types.int64)
        ignoring = builder.icmp_signed(
            "!=", repeat(builder, ignores, COUNT), ir.Constant(wide.type, None)
        )
        ignored = builder.and_(given, ignoring)
        wrong = builder.and_(builder.not_(builder.or_(known, ignored)), some)
        number = builder.sitofp(
            builder.trunc(wide, ir.VectorType(ir.IntType(32), COUNT)),
            context.get_value_type(FLOAT32X16),
        )
        none = ir.Constant(number.type, [-1.0] * COUNT)
        label = builder.select(
            builder.and_(builder.and_(known, some), builder.not_(ignored)), number, none
        )
        set_bits = builder.zext(builder.bitcast(wrong, ir.IntType(COUNT)), ir.IntType(64))
        return context.make_tuple(builder, result, [label, set_bits])

    return result(
        array, types.intp, types.intp, types.int64, types.int64, types.boolean, types.int64
    ), codegen


@inlined
def prove_lanes(
    array: Any, index: int, count: int, classes: int, mask: int, ignores: bool, ignored: int
) -> Any:
    """``(labels, wrong)`` of ``count`` positions, at most 16, from ``index`` on.

    ``labels`` are float32 lanes: class indices below ``classes`` (of at most 2**24), and -1 where
    the label is ignored, is no class, or is not among the ``count``. ``wrong`` has a bit set for
    each label that is neither a class nor ignored. For ``mask`` and the others see ``Labels``.
    """
    check(array, index, min(count, COUNT))
    return _prove(array, index, count, classes, mask, ignores, ignored)


def _unsigned(array: Any) -> Lanes:
    return Lanes(types.Integer.from_bitwidth(array.dtype.bitwidth, signed=False), COUNT)


@intrinsic
def no_label(typing: Any, array: Any) -> Any:
    """Largest of no labels: 0 in each of 16 unsigned lanes, as wide as labels of ``array``."""
    lanes = _unsigned(array)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(lanes), None)

    return lanes(array), codegen


@intrinsic
def _load_labels(typing: Any, array: Any, index: Any, largest: Any) -> Any:
    result = types.Tuple((FLOAT32X16, largest))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, words = args[2].type, ir.VectorType(ir.IntType(32), COUNT)
        address = address_of(context, builder, array, args[0], args[1])
        value = builder.load(
            builder.bitcast(address, kind.as_pointer()), align=array.dtype.bitwidth // 8
        )
        above = builder.icmp_unsigned(">", value, args[2])
        raised = builder.select(above, value, args[2])
        bits = kind.element.width
        if bits != 32:
            value = (builder.trunc if bits > 32 else builder.zext)(value, words)
        lanes = builder.sitofp(value, context.get_value_type(FLOAT32X16))
        return context.make_tuple(builder, result, [lanes, raised])

    return result(array, types.intp, largest), codegen


@intrinsic
def _largest_of(typing: Any, largest: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        name = f"llvm.vector.reduce.umax.v{kind.count}i{kind.element.width}"
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind.element, [kind]), name
        )
        value = builder.call(function, [args[0]])
        word = ir.IntType(64)
        return value if kind.element == word else builder.zext(value, word)

    return types.int64(largest), codegen


@inlined
def load_labels(array: Any, index: int, largest: Any) -> Any:
    """``(labels, largest)``: 16 labels from ``index`` on as float32 lanes, and ``largest`` of them
    and before, both unsigned. Only if that ``are_classes`` are the labels right.
    """
    check(array, index, COUNT)
    return _load_labels(array, index, largest)


@by_type
def are_classes(array: Any, largest: Any, classes: Any, mask: Any) -> Any:
    """Test whether all labels are below ``classes``, from ``largest``; see ``Labels.mask``."""
    most = 2 ** (min(array.dtype.bitwidth, 63) - 1)

    def below(array: Any, largest: Any, classes: Any, mask: Any) -> bool:
        top = _largest_of(largest)
        # Taken as unsigned, negative labels are ``most`` or more.
        return (0 <= top < classes) & (mask != -1 or top < most)

    return below
