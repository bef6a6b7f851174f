"""Threads that run a kernel.

A kernel takes ``(share, shares, operands)`` and does its share of the work; the operands are
packed (``packed``). One small parallel loop calls any of them by address: calling by name, Numba
would compile each a second time into the loop, for 12 s instead of 1 s.

One parallel loop runs at a time in a process: two at once abort it on Numba's ``workqueue``
threading layer (SIGABRT). With one worker there is no loop, and no lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

import numba
from numba import prange, types
from numba.extending import intrinsic

from kernels.cache import folder
from kernels.compiled import kernel, one_process, parallel_kernel
from kernels.cpu.arguments import Operands
from kernels.cpu.packed import Packed, PackedOperands, pack, point
from kernels.reduce import add_blocks

_ONE_AT_A_TIME = threading.Lock()


@intrinsic
def _call(typing: Any, code: Any, share: Any, shares: Any, operands: Any) -> Any:
    """Call the kernel at the address ``code`` with the address of its ``operands``."""
    kinds = (types.intp,) * 3

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        convention = context.call_conv
        function = convention.get_function_type(types.none, kinds)
        pointer = builder.inttoptr(args[0], function.as_pointer())
        convention.call_function(builder, pointer, types.none, kinds, args[1:])
        return context.get_dummy_value()

    return types.void(code, share, shares, operands), codegen


@kernel
def _alone(code: int, first: int, shares: int, operands: int) -> None:
    _call(code, first, shares, operands)


@kernel
def _again(
    code: int, operands: int, slot: int, array: int, other_slot: int, other: int, blocks: Any,
    bad: Any,
) -> Any:  # fmt: skip
    """A whole loss on this thread, in one call from Python: see ``bound``."""
    point(slot, array, other_slot, other)
    _call(code, 0, 1, operands)
    loss, weight = add_blocks(blocks)
    return loss, weight, bad[0]


@parallel_kernel
def _in_parallel(code: int, workers: int, first: int, shares: int, operands: int) -> None:
    for worker in prange(workers):
        _call(code, first + worker, shares, operands)


class _Code(NamedTuple):
    """A kernel compiled for one type of operands: its address, and the call that packs them."""

    address: int
    pack: Any


_COMPILED: dict[tuple[Any, ...], _Code] = {}


def _compile(function: Any, signature: tuple[Any, ...]) -> Any:
    """Code of ``function`` for ``signature``, compiled if it is not yet."""
    if signature not in function.overloads:
        # One of the processes that share a cache compiles it; the others then load it.
        lock = f"{function.__name__}.{crc32(repr(signature).encode()):08x}"
        with one_process(folder(), lock):
            function.compile(signature)
    return function.overloads[signature]


def _code(kernel: Any, key: tuple[Any, ...], operands: Operands) -> _Code:
    code = _COMPILED.get((kernel, *key))
    if code is None:
        kind = numba.typeof(operands)
        compiled = _compile(kernel, (types.intp, types.intp, Packed(kind)))
        address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        packing = _compile(pack, (kind, types.intp)).entry_point
        code = _COMPILED[(kernel, *key)] = _Code(address, packing)
    return code


@lru_cache
def _launcher(alone: bool) -> Any:
    """Call from Python that runs a kernel's shares, on this thread ``alone`` or on many."""
    function, count = (_alone, 4) if alone else (_in_parallel, 5)
    return _compile(function, (types.intp,) * count).entry_point


def compiled(kernel: Any, key: tuple[Any, ...]) -> bool:
    """Return True if ``run`` has nothing left to compile or load for operands of ``key``."""
    return (kernel, *key) in _COMPILED


def bound(
    kernel: Any, key: tuple[Any, ...], workers: int, operands: Operands, arrays: tuple[Any, Any]
) -> Callable[[Any, Any], tuple[float, float, int]]:
    """``run`` for the same operands again and again, but for two of their ``arrays``.

    Each call takes two others of their types and sizes. It returns the sums of ``add_blocks``, and
    the first position with an impossible label.
    """
    code = _code(kernel, key, operands)
    packed = PackedOperands(code.pack, operands)
    slot, other_slot = map(packed.slot, arrays)
    blocks, bad = operands.results.blocks, operands.results.bad
    if workers == 1:
        kinds = (*(types.intp,) * 6, numba.typeof(blocks), numba.typeof(bad))
        again = _compile(_again, kinds).entry_point

        def call(array: Any, other: Any) -> Any:
            arrays = slot, id(array), other_slot, id(other)
            return again(code.address, packed.address, *arrays, blocks, bad)

        return call
    repoint, many = _compile(point, (types.intp,) * 4).entry_point, _launcher(False)

    def call_many(array: Any, other: Any) -> tuple[float, float, int]:
        repoint(slot, id(array), other_slot, id(other))
        with _ONE_AT_A_TIME:
            many(code.address, workers, 0, workers, packed.address)
        return (*add_blocks(blocks), min(bad.tolist()))

    return call_many


def run(
    kernel: Any,
    key: tuple[Any, ...],
    workers: int,
    operands: Operands,
    first: int = 0,
    shares: int | None = None,
) -> None:
    """Run ``workers`` shares of ``kernel``, from ``first`` on, each on a thread of its own.

    There are ``shares`` in all, by default as many as workers. All operands of one ``key`` are
    of the same Numba type: ``numba.typeof`` takes longer than a small loss.
    """
    code = _code(kernel, key, operands)
    packed = PackedOperands(code.pack, operands)
    shares = workers if shares is None else shares
    if workers == 1:
        _launcher(True)(code.address, first, shares, packed.address)
        return
    many = _launcher(False)  # compiled before the lock is held
    with _ONE_AT_A_TIME:
        many(code.address, workers, first, shares, packed.address)
