"""Operations that a GPU does in one instruction or two, and Numba has no name for.

Under ``NUMBA_ENABLE_CUDASIM=1`` kernels run as Python, and ``simulated`` replaces this module.
An array's dtype says what its bits are, as on the CPU (``kernels.dtypes``, ``DType.load``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir
from numba import cuda, float32, float64, int32, int64, types
from numba.cuda import libdevice
from numba.cuda.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])
VECTOR_BITS = 128
WARP = 32
_ALL_LANES = 0xFFFFFFFF
_WORD = ir.IntType(32)


def device(function: Function) -> Function:
    """Compile for use in kernels; always inlined, so that tuples of scalars stay in registers."""
    return cuda.jit(device=True, forceinline=True)(function)


team = device


def kernel(threads: int, resident: int = 512) -> Callable[[Function], Any]:
    """Compile for blocks of at most ``threads``, with room for ``resident`` threads on an SM.

    512 leave each thread 128 registers; with 64 the kernels for all options and outputs spill.
    """
    return cuda.jit(launch_bounds=(threads, resident // threads))


def adopted(interface: dict[str, Any], owner: Any) -> Any:
    """Device array of a ``__cuda_array_interface__``; ``owner`` keeps its memory alive."""
    return cuda.from_cuda_array_interface(interface, owner=owner)


@device
def exp2(t: Any) -> Any:
    """2**t, within 2 ulp (CUDA's table of errors), also below the normal range."""
    return math.exp2(t)


@device
def fma(a: Any, b: Any, c: Any) -> Any:
    """Fused a * b + c, rounded once."""
    return cuda.fma(a, b, c)


@device
def two_to_float32(n: Any) -> Any:
    """2**n exactly, for a whole float32 n <= 0; 0 below the normal range."""
    if n < float32(-126.0):
        return float32(0.0)
    return libdevice.int_as_float((int32(n) + int32(127)) << int32(23))


@device
def two_to_float64(n: Any) -> Any:
    """``two_to_float32`` of a float64."""
    if n < float64(-1022.0):
        return float64(0.0)
    return libdevice.longlong_as_double((int64(n) + int64(1023)) << int64(52))


@device
def swapped(value: Any, distance: int) -> Any:
    """``value`` of the lane whose number differs by the bit ``distance``."""
    return cuda.shfl_xor_sync(_ALL_LANES, value, distance)


def _computed_in(array: Any) -> Any:
    return types.float64 if array.dtype == types.float64 else types.float32


def _load(context: Any, builder: Any, array: Any, args: Any, memory: Any, align: int) -> Any:
    """Load the LLVM type ``memory`` from ``array[index]`` on, through the read-only cache."""
    data = context.make_array(array)(context, builder, args[0]).data
    address = builder.bitcast(builder.gep(data, [args[1]]), memory.as_pointer())
    value = builder.load(builder.addrspacecast(address, memory.as_pointer(1)), align=align)
    value.set_metadata("invariant.load", builder.module.add_metadata([]))
    return value


def _widened(builder: Any, dtype: Any, bits: Any) -> Any:
    """One element of ``dtype`` in the type that it is computed in."""
    if dtype == types.uint16:
        return builder.bitcast(builder.shl(builder.zext(bits, _WORD), _WORD(16)), ir.FloatType())
    if dtype == types.int16:
        return builder.fpext(builder.bitcast(bits, ir.HalfType()), ir.FloatType())
    return builder.bitcast(bits, ir.DoubleType() if dtype == types.float64 else ir.FloatType())


def _from_words(builder: Any, dtype: Any, words: list[Any]) -> list[Any]:
    """Elements of ``dtype`` in four words of 32 bits."""
    if dtype == types.float64:
        long = ir.IntType(64)
        low, high = ([builder.zext(word, long) for word in words[i::2]] for i in (0, 1))
        words = [builder.or_(a, builder.shl(b, long(32))) for a, b in zip(low, high, strict=True)]
    if dtype == types.uint16:
        top = _WORD(0xFFFF0000)
        halves = [(builder.shl(word, _WORD(16)), builder.and_(word, top)) for word in words]
        return [builder.bitcast(bits, ir.FloatType()) for pair in halves for bits in pair]
    if dtype == types.int16:
        pairs = [(word, builder.lshr(word, _WORD(16))) for word in words]
        words = [builder.trunc(bits, ir.IntType(16)) for pair in pairs for bits in pair]
    return [_widened(builder, dtype, bits) for bits in words]


def _one(context: Any, builder: Any, array: Any, args: Any) -> Any:
    bits = array.dtype.bitwidth
    value = _load(context, builder, array, args, ir.IntType(bits), bits // 8)
    return _widened(builder, array.dtype, value)


@intrinsic
def element(typing: Any, array: Any, index: Any) -> Any:
    """``array[index]`` in the type it is computed in. The kernel must not write to ``array``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _one(context, builder, array, args)

    return _computed_in(array)(array, types.int64), codegen


@intrinsic
def vector(typing: Any, array: Any, index: Any) -> Any:
    """Tuple of ``element``s in the 16 bytes from ``array[index]`` on, a multiple of 16."""
    count = VECTOR_BITS // array.dtype.bitwidth
    answer = types.UniTuple(_computed_in(array), count)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = _load(context, builder, array, args, ir.VectorType(_WORD, 4), 16)
        words = [builder.extract_element(value, _WORD(k)) for k in range(4)]
        return context.make_tuple(builder, answer, _from_words(builder, array.dtype, words))

    return answer(array, types.int64), codegen


@intrinsic
def first_of_vector(typing: Any, array: Any, index: Any, count: Any) -> Any:
    """``vector`` from any index on: ``count`` elements, loaded one by one, and then zeros."""
    width = VECTOR_BITS // array.dtype.bitwidth
    answer = types.UniTuple(_computed_in(array), width)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        items = []
        for k in range(width):
            place = ir.IntType(64)(k)
            before = builder.block
            with builder.if_then(builder.icmp_signed("<", place, args[2])):
                at = [args[0], builder.add(args[1], place)]
                value = _one(context, builder, array, at)
                loaded = builder.block
            item = builder.phi(value.type)
            item.add_incoming(ir.Constant(value.type, 0.0), before)
            item.add_incoming(value, loaded)
            items.append(item)
        return context.make_tuple(builder, answer, items)

    return answer(array, types.int64, types.int64), codegen


@intrinsic
def aligned(typing: Any, array: Any, index: Any) -> Any:
    """Return True if ``array[index]`` lies on a multiple of 16 bytes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        address = builder.ptrtoint(builder.gep(data, [args[1]]), ir.IntType(64))
        low = builder.and_(address, ir.IntType(64)(15))
        return builder.icmp_unsigned("==", low, ir.IntType(64)(0))

    return types.boolean(array, types.int64), codegen
