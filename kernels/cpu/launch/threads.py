"""Threads that run a kernel.

A kernel takes ``(share, shares, operands)`` and does its share of the work; the operands are
packed (``packed``). One small parallel loop calls any of them by address: calling by name, Numba
would compile each a second time into the loop, for 12 s instead of 1 s.

One parallel loop runs at a time in a process: two at once abort it on Numba's ``workqueue``
threading layer (SIGABRT). With one worker there is no loop, and no lock.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

import numba
from numba import prange, types
from numba.extending import intrinsic

from kernels.cache import folder
from kernels.compiled import kernel, one_process, parallel_kernel
from kernels.cpu.arguments import Operands
from kernels.cpu.packed import Packed, PackedOperands, pack

_ONE_AT_A_TIME = threading.Lock()


@intrinsic
def call_kernel(typing: Any, code: Any, share: Any, shares: Any, operands: Any) -> Any:
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
    call_kernel(code, first, shares, operands)


@parallel_kernel
def _in_parallel(code: int, workers: int, first: int, shares: int, operands: int) -> None:
    for worker in prange(workers):
        call_kernel(code, first + worker, shares, operands)


class _Code(NamedTuple):
    """A kernel compiled for one type of operands: its address, and the call that packs them."""

    address: int
    pack: Any


_COMPILED: dict[tuple[Any, ...], _Code] = {}


def compile_kernel(function: Any, signature: tuple[Any, ...]) -> Any:
    """Code of ``function`` for ``signature``, compiled if it is not yet."""
    if signature not in function.overloads:
        # One of the processes that share a cache compiles it; the others then load it.
        lock = f"{function.__name__}.{crc32(repr(signature).encode()):08x}"
        with one_process(folder(), lock):
            function.compile(signature)
    return function.overloads[signature]


def code_of(kernel: Any, key: tuple[Any, ...], operands: Operands) -> _Code:
    """Code of ``kernel`` for operands of ``key``, compiled if it is not yet."""
    code = _COMPILED.get((kernel, *key))
    if code is None:
        kind = numba.typeof(operands)
        compiled = compile_kernel(kernel, (types.intp, types.intp, Packed(kind)))
        address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        packing = compile_kernel(pack, (kind, types.intp)).entry_point
        code = _COMPILED[(kernel, *key)] = _Code(address, packing)
    return code


@lru_cache
def _launcher(alone: bool) -> Any:
    """Call from Python that runs a kernel's shares, on this thread ``alone`` or on many."""
    function, count = (_alone, 4) if alone else (_in_parallel, 5)
    return compile_kernel(function, (types.intp,) * count).entry_point


def compiled(kernel: Any, key: tuple[Any, ...]) -> bool:
    """Return True if ``run`` has nothing left to compile or load for operands of ``key``."""
    return (kernel, *key) in _COMPILED


def run_many(code: int, workers: int, first: int, shares: int, operands: int) -> None:
    """Run ``workers`` shares, from ``first`` on, of the kernel and operands at these addresses."""
    many = _launcher(False)  # compiled before the lock is held
    with _ONE_AT_A_TIME:
        many(code, workers, first, shares, operands)


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
    code = code_of(kernel, key, operands)
    packed = PackedOperands(code.pack, operands)
    shares = workers if shares is None else shares
    if workers == 1:
        _launcher(True)(code.address, first, shares, packed.address)
        return
    run_many(code.address, workers, first, shares, packed.address)
