"""Prefetching of memory before its use, stores past the caches, and the order of loads."""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiled import by_type, inlined
from kernels.simd.memory import address_of, check, width

# Bytes from a load to its prefetch in one long stream, by the element's size: as much as a fifth of
# a small L1. In rows of 32000 classes, one thread took 3.73 us a float32 row with 2048, 3.42 with
# 4096, and 3.30 with 6144 to 10240; a plain read took 3.24 (EPYC, family 26). The loops of 16-bit
# logits take longer: 2.06 us a bfloat16 row with 4096, 1.91 with 8192, 1.88 with 10240 and 12288.
AHEAD = {64: 8192, 32: 8192, 16: 10240}
# Cache level that lines are brought to, as LLVM has it. To L1 on Zen 5, which has 48 KiB of it: to
# L2 was no faster for planes and 3 to 8 % slower for long rows. To L2 elsewhere: a core of Zen 4
# has 32 KiB, where lines were evicted before their use, one of Intel's has 16 buffers for lines on
# their way to L1, and waits when none is left. On one thread of a Zen 4 500,000 rows of 100 classes
# took 11.7 ms, not 14.8; 8x19x512x256 5.8 ms, not 7.2; 1,000,000 rows of 10 4.9 ms, not 5.7.
_L1, _L2 = 3, 2
BY_L2 = (config.CPU_NAME or binding.get_host_cpu_name()) != "znver5"
_LEVEL = _L2 if BY_L2 else _L1
# Bytes ahead and level of the prefetches of turns. Float32 rows brought to L2 and then to L1 took
# 10 to 14 % less time than to L1 on a Xeon (model 207), 20 % less on one thread of a Zen 4, where
# bfloat16 rows took as long, and 3 % less beside the maxima of their logits.
_IN_TURNS = {
    bits: ((16384, _L2), (1024, _L1)) if BY_L2 else ((count, _L1),) for bits, count in AHEAD.items()
}
# Bytes of a turn of such a loop, whose prefetches come first: one line in each quarter of a turn of
# twice the bytes took a tenth longer.
TURN = 512
_LINE = 64
# Bytes of an array, and of a row of it, from which on lines are stored past the caches: ordinary
# stores read a line before they write it. A gradient, with a read of it after that, took 19 % more
# for 8 MB, 5 % less for 16, 8 % less for 32 (EPYC, family 26, 32 MiB of L3, one thread). Lines that
# two rows share are stored as ever, and waited for: of 250 MB, rows of 8 KB took 15 % less than by
# ordinary stores alone, of 4 KB as long, of 1 KB 40 % more.
PAST, PAST_ROW = 2**25, 2**12


@by_type
def ahead(array: Any) -> Any:
    """``AHEAD`` in elements of ``array``."""
    count = AHEAD[array.dtype.bitwidth] * 8 // array.dtype.bitwidth

    def count_of(array: Any) -> int:
        return count

    return count_of


@by_type
def turn(array: Any) -> Any:
    """``TURN`` in elements of ``array``."""
    count = TURN * 8 // array.dtype.bitwidth

    def count_of(array: Any) -> int:
        return count

    return count_of


def _prefetch(builder: Any, address: Any, level: int = _LEVEL) -> None:
    word, byte = ir.IntType(32), ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [byte, word, word, word]),
        "llvm.prefetch.p0",
    )
    read, keep, data = ir.Constant(word, 0), ir.Constant(word, level), ir.Constant(word, 1)
    builder.call(function, [builder.bitcast(address, byte), read, keep, data])


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Prefetch the cache line of ``index``; beyond the array's end that is harmless."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        _prefetch(builder, address)
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def prefetch_turn(typing: Any, array: Any, index: Any) -> Any:
    """Prefetch what the turn from ``index`` on makes time for: ``TURN`` bytes some way ahead."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first, bits = address_of(context, builder, array, args[0], args[1]), array.dtype.bitwidth
        for distance, level in _IN_TURNS[bits]:
            for line in range(distance, distance + TURN, _LINE):
                offset = ir.Constant(ir.IntType(64), line * 8 // bits)
                _prefetch(builder, builder.gep(first, [offset]), level)
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def address_at(typing: Any, array: Any, index: Any) -> Any:
    """Address of ``index``, for ``prefetch_at``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        return builder.ptrtoint(address, ir.IntType(64))

    return types.intp(array, types.intp), codegen


@intrinsic
def prefetch_at(typing: Any, address: Any) -> Any:
    """``prefetch`` of an array whose type the caller need not be compiled for."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _prefetch(builder, builder.inttoptr(args[0], ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def loads_after(typing: Any) -> Any:
    """Keep the compiler from moving loads across this place; it is no instruction.

    LLVM loaded all registers of a turn at its beginning, and kept sums on the stack meanwhile.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("acq_rel", "singlethread")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _before_line(typing: Any, array: Any, index: Any) -> Any:
    size = array.dtype.bitwidth // 8

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        address = builder.ptrtoint(address_of(context, builder, array, args[0], args[1]), word)
        missing = builder.and_(builder.neg(address), ir.Constant(word, _LINE - 1))
        return builder.udiv(missing, ir.Constant(word, size))

    return types.intp(array, types.intp), codegen


@inlined
def before_line(array: Any, index: int) -> int:
    """Number of elements from ``index`` on that lie before the next cache line's first."""
    return _before_line(array, index)


@by_type
def beyond_cache(array: Any, row: Any) -> Any:
    """Test whether ``array``, in rows of ``row`` elements, is to be stored past the caches."""
    size = array.dtype.bitwidth // 8
    least, least_row = PAST // size, PAST_ROW // size

    def test(array: Any, row: Any) -> Any:
        return array.size >= least and row >= least_row

    return test


@intrinsic
def _store_past(typing: Any, array: Any, index: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        stored = builder.store(
            args[2], builder.bitcast(address, args[2].type.as_pointer()), align=_LINE
        )
        one = ir.Constant(ir.IntType(32), 1)
        stored.set_metadata("nontemporal", builder.module.add_metadata([one]))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@inlined
def store_past(array: Any, index: int, value: Any) -> None:
    """``memory.store`` of a whole cache line to memory, which is not read into the caches first.

    ``index`` is a line's first. Other threads see it after ``stored_past``.
    """
    check(array, index, width(array))
    _store_past(array, index, value)


@intrinsic
def stored_past(typing: Any) -> Any:
    """Finish this thread's ``store_past`` before any later store of it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # MFENCE or a locked instruction on x86: both drain its write-combining buffers. A release
        # would be no instruction there.
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen
