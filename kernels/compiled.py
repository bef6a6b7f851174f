"""Compiler options of this package's Numba functions, and the decorators that apply them.

``nogil``: other threads run while a kernel does, but ``short_kernel``. ``error_model="numpy"``: a
division by zero gives inf or NaN, as the semantics want, without a branch. ``_nrt=False``: without
Numba's run time a kernel cannot allocate, and counting references to arrays does not cost each row
100 ns. No ``fastmath``: it would break NaN and infinities; ``simd`` writes additions in the order
in which they are fast. ``cache``: a warm start takes seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from numba import njit, types
from numba.core.codegen import JITCodeLibrary
from numba.extending import intrinsic, overload, register_jitable

from kernels.cache import cached

try:
    import fcntl
except ImportError:  # Windows has no fcntl: there, processes that share a cache race to fill it
    fcntl = None  # type: ignore[assignment]

Function = TypeVar("Function", bound=Callable[..., Any])
_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}
# For use in kernels only: without the wrappers for Python and C, which take a third of the time.
_INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **_OPTIONS}
# Always inlined, since a call passes each array as seven words.
INLINED = {"forceinline": True, **_INNER}


def stamp_of(sources: Iterable[Path]) -> bytes:
    """Hash of the files ``sources``, which tells code compiled from them from older code.

    Raises ``ValueError`` where there is none: such a stamp would keep all code valid for ever.
    """
    digest, paths = hashlib.sha256(), sorted(sources)
    if not paths:
        raise ValueError("a stamp over no file would never change")
    for path in paths:
        digest.update(path.read_bytes())
    return digest.digest()


_FOLDER = Path(__file__).parent
# Without the sources for CUDA and of reports, which no CPU kernel is compiled from.
_ELSEWHERE = {path for name in ("cuda", "report") for path in (_FOLDER / name).rglob("*.py")}
SOURCES = {*_FOLDER.rglob("*.py")} - _ELSEWHERE
STAMP = stamp_of(SOURCES)


@contextlib.contextmanager
def one_process(folder: Path | None, name: str) -> Iterator[None]:
    """Hold the lock ``name`` of ``folder``, which does not nest; none where that is read-only."""
    try:
        if folder is None:
            raise FileNotFoundError
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"lossd.{name}", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        yield
        return
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _cached(dispatcher: Any) -> Any:
    """Give ``dispatcher`` a cache that is void once any source of the package changes.

    Numba's own cache checks the kernel's file alone, not those of functions inlined into it, and
    does not verify what it loads.
    """
    return cached(dispatcher, STAMP)


class _Library(JITCodeLibrary):
    """LLVM code of a kernel, or of a function that it calls; only the kernel's is fully optimised,
    and becomes machine code.

    Numba links called functions into their caller and optimises both, at each level of calls: that
    took 4 of a kernel's 17 s, and no loss is faster for it. It makes machine code of each one, too,
    which nothing here calls: 4 s of 31 (float32, Zen 4).
    """

    kernel = ""

    def _finalize_final_module(self) -> None:
        if self.name == self.kernel:
            super()._finalize_final_module()
            return
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def _optimize_final_module(self) -> None:
        if self.name == self.kernel:
            super()._optimize_final_module()
            return
        codegen = self._codegen
        passes, builder = codegen._module_pass_manager(
            loop_vectorize=False, slp_vectorize=False, opt=codegen._opt_level, cost="cheap"
        )
        passes.run(self._final_module, builder)


def _optimised_once(dispatcher: Any) -> Any:
    """Have ``dispatcher`` compile to ``_Library``; it holds Numba's compiler lock meanwhile."""
    compiled = dispatcher._compiler.compile

    def compile_alone(*arguments: Any) -> Any:
        codegen = dispatcher.targetctx.codegen()
        own, kernel, set_env = codegen._library_class, _Library.kernel, codegen.set_env

        def set_known_env(name: str, environment: Any) -> None:
            if codegen._engine.is_symbol_defined(name):  # only where there is machine code
                set_env(name, environment)

        codegen._library_class, _Library.kernel = _Library, dispatcher.py_func.__qualname__
        codegen.set_env = set_known_env
        try:
            return compiled(*arguments)
        finally:
            codegen._library_class, _Library.kernel, codegen.set_env = own, kernel, set_env

    dispatcher._compiler.compile = compile_alone
    return dispatcher


def inlined(function: Function) -> Function:
    """Compile for use in kernels, inlined; see ``INLINED``."""
    return register_jitable(**INLINED)(function)


def by_type(choose: Callable[..., Any]) -> Any:
    """Compile for use in kernels, inlined: ``choose`` returns a function for the types it gets."""

    def function(*_: Any) -> Any:
        raise NotImplementedError("for compiled code only")

    overload(function, jit_options=INLINED)(choose)
    return function


def called(function: Function) -> Function:
    """Compile for use in kernels: once, and called.

    Numba's options are those of the caller, here an inlined function, where they are not given.
    """
    return register_jitable(forceinline=False, **_INNER)(function)


@intrinsic
def never_inlined(typing: Any) -> Any:
    """Keep LLVM from inlining the function that calls this: so all registers are its own."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


def kernel(function: Function) -> Function:
    """Compile for use from Python, on one thread."""
    return _optimised_once(_cached(njit(**_OPTIONS)(function)))


def short_kernel(function: Function) -> Function:
    """Compile for use from Python, on one thread, for so short a time that the GIL is kept."""
    return _optimised_once(_cached(njit(**{**_OPTIONS, "nogil": False})(function)))


def kernel_by_address(function: Function) -> Function:
    """Compile for calls by address (``cpu.launch.threads``), on one thread."""
    return _optimised_once(_cached(njit(**_INNER)(function)))


def parallel_kernel(function: Function) -> Function:
    """Compile for use from Python, on many threads; one call at a time (``cpu.launch.threads``)."""
    return _cached(njit(parallel=True, **_OPTIONS)(function))
