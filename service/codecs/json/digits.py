"""Digits in vectors of text, inside Numba kernels: their ends, and the integers they make.

The vectors are LLVM's own, for which every machine has instructions. Callers ensure that all bytes
that are read lie within the text; NUMBA_BOUNDSCHECK=1 checks both ends.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

WINDOW = 32  # bytes that are looked at together: few numbers are longer
DIGITS = 16  # digits that are read together: more than enough to round to float32

_WORD = ir.IntType(64)
_INDEX = ir.IntType(32)


def _vector(width: int, count: int) -> ir.VectorType:
    return ir.VectorType(ir.IntType(width), count)


def _all(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _values(context: Any, builder: Any, kind: Any, text: Any, at: Any, count: int) -> Any:
    """Load ``count`` bytes from ``at`` on, each minus the byte of the digit 0."""
    array = context.make_array(kind)(context, builder, text)
    if config.BOUNDSCHECK:
        size = builder.extract_value(array.shape, 0)
        for index in (at, builder.add(at, at.type(count - 1))):
            cgutils.do_boundscheck(context, builder, index, size, 0)
    bytes_ = _vector(8, count)
    pointer = builder.bitcast(builder.gep(array.data, [at]), bytes_.as_pointer())
    return builder.sub(builder.load(pointer, align=1), _all(bytes_, ord("0")))


@intrinsic
def no_digits(typing: Any, text: Any, at: Any) -> Any:
    """Return a mask of ``WINDOW`` bytes from ``at`` on, the lowest bit first: 1 for no digit."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = _values(context, builder, text, args[0], args[1], WINDOW)
        others = builder.icmp_unsigned(">", values, _all(values.type, 9))
        return builder.zext(builder.bitcast(others, ir.IntType(WINDOW)), _WORD)

    return types.uint64(text, types.intp), codegen


def _first(builder: Any, count: Any) -> Any:
    """Return a mask of the first ``count`` of ``DIGITS`` bytes."""
    kind = _vector(8, DIGITS)
    byte = builder.trunc(count, kind.element)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), byte, _INDEX(0))
    limit = builder.shuffle_vector(one, one, _all(_vector(32, DIGITS), 0))
    return builder.icmp_unsigned("<", ir.Constant(kind, list(range(DIGITS))), limit)


def _paired(builder: Any, numbers: Any, digits: int) -> Any:
    """Join pairs of numbers of so many digits, which fill the vector's elements.

    The first of a pair, in the lower bits on little-endian machines, is more significant.
    """
    width = numbers.type.element.width
    kind = _vector(2 * width, numbers.type.count // 2)
    pairs = builder.bitcast(numbers, kind)
    first = builder.and_(pairs, _all(kind, 2**width - 1))
    second = builder.lshr(pairs, _all(kind, width))
    return builder.add(builder.mul(first, _all(kind, 10**digits)), second)


@intrinsic
def leading_digits(typing: Any, text: Any, at: Any, whole: Any, count: Any) -> Any:
    """Return the first ``DIGITS`` of ``count`` digits at ``at`` as an integer, padded with zeros.

    The decimal point follows ``whole`` of them. One byte more than ``DIGITS`` is read.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, at, whole, count = args
        before = _values(context, builder, text, array, at, DIGITS)
        after = _values(context, builder, text, array, builder.add(at, at.type(1)), DIGITS)
        numbers = builder.select(_first(builder, whole), before, after)
        numbers = builder.select(_first(builder, count), numbers, _all(numbers.type, 0))
        for digits in (1, 2, 4):
            numbers = _paired(builder, numbers, digits)
        high, low = (builder.extract_element(numbers, _INDEX(i)) for i in range(2))
        return builder.add(builder.mul(high, _WORD(10**8)), low)

    return types.uint64(text, types.intp, types.int64, types.int64), codegen
