"""Threads that run a kernel.

A kernel takes ``(share, shares, operands)`` and does its share of the work. One small parallel
loop calls any of them by address: calling by name, Numba would compile each a second time into the
loop, for 12 s instead of 1 s.

One parallel loop runs at a time in a process: two at once abort it on Numba's ``workqueue``
threading layer (SIGABRT). With one worker there is no loop, and no lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from zlib import crc32

import numba
from numba import prange, types
from numba.extending import intrinsic

from kernels.cache import folder
from kernels.compiled import one_process, parallel_kernel
from kernels.cpu.arguments import Operands

_ONE_AT_A_TIME = threading.Lock()


@intrinsic
def _call(typing: Any, address: Any, share: Any, shares: Any, operands: Any) -> Any:
    """Call the kernel at ``address``, compiled for this type of ``operands``."""
    kinds = (types.intp, types.intp, operands)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        convention = context.call_conv
        function = convention.get_function_type(types.none, kinds)
        pointer = builder.inttoptr(args[0], function.as_pointer())
        convention.call_function(builder, pointer, types.none, kinds, args[1:])
        return context.get_dummy_value()

    return types.void(address, share, shares, operands), codegen


@parallel_kernel
def _in_parallel(
    address: int, workers: int, first: int, shares: int, tile: int, logits: Any, soft: Any,
    labels: Any, options: Any, results: Any, log_probs: Any, gradient: Any, scratch: Any,
    likeliest: Any,
) -> None:  # fmt: skip
    for worker in prange(workers):
        # Made in the loop: Numba cannot pass nested tuples into one.
        operands = Operands(
            tile, logits, soft, labels, options, results, log_probs, gradient, scratch, likeliest
        )
        _call(address, first + worker, shares, operands)


class _Code(NamedTuple):
    """A kernel compiled for one type of operands: its address, and a call from Python."""

    address: int
    call: Any


_COMPILED: dict[tuple[Any, ...], _Code] = {}
_LOOPS: set[tuple[Any, ...]] = set()


def _compile(kernel: Any, signature: tuple[Any, ...]) -> None:
    if signature not in kernel.overloads:
        # One of the processes that share a cache compiles it; the others then load it.
        lock = f"{kernel.__name__}.{crc32(repr(signature).encode()):08x}"
        with one_process(folder(), lock):
            kernel.compile(signature)


def _code(kernel: Any, key: tuple[Any, ...], operands: Operands) -> _Code:
    code = _COMPILED.get((kernel, *key))
    if code is None:
        signature = (types.intp, types.intp, numba.typeof(operands))
        _compile(kernel, signature)
        overload = kernel.overloads[signature]
        address = overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name)
        code = _COMPILED[(kernel, *key)] = _Code(address, overload.entry_point)
    return code


def compiled(kernel: Any, key: tuple[Any, ...]) -> bool:
    """Return True if ``run`` has nothing left to compile or load for operands of ``key``."""
    return (kernel, *key) in _COMPILED


def bound(kernel: Any, key: tuple[Any, ...], operands: Operands) -> Callable[[], None]:
    """``run`` on the calling thread alone, with its code looked up."""
    return partial(_code(kernel, key, operands).call, 0, 1, operands)


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
    shares = workers if shares is None else shares
    if workers == 1:
        code.call(first, shares, operands)
        return
    if (kernel, *key) not in _LOOPS:  # else it would be compiled while the lock is held
        _compile(_in_parallel, (*(types.intp,) * 4, *map(numba.typeof, operands)))
        _LOOPS.add((kernel, *key))
    with _ONE_AT_A_TIME:
        _in_parallel(code.address, workers, first, shares, *operands)
