"""Private names of Numba that kernels/cache.py and kernels/compiled.py use are there."""

from __future__ import annotations

from typing import Any

import numba
import pytest
from numba.core import caching, compiler, serialize
from numba.core.codegen import JITCodeLibrary

one: Any = numba.njit(lambda: 1)

# What has the names -> the names, each of which no interface promises.
USED: dict[Any, str] = {
    caching: "_Cache",
    caching._Cache: "cache_path enable disable flush load_overload save_overload",
    compiler.CompileResult: "_rebuild _reduce",
    serialize: "dumps loads",
    JITCodeLibrary: (
        "_finalize_dynamic_globals _finalize_final_module _optimize_final_module"
        " _verify_declare_only_symbols"
    ),
    one: "_cache _compiler py_func targetctx",
    one._compiler: "compile",
    one.targetctx: "codegen refresh",
    one.targetctx.codegen(): (
        "_engine _library_class _module_pass_manager _opt_level magic_tuple set_env"
    ),
    one.targetctx.codegen()._engine: "is_symbol_defined",
    one.targetctx.codegen().create_library("empty"): "_codegen _final_module _finalized name",
}


@pytest.mark.parametrize(
    "owner", USED, ids=lambda owner: getattr(owner, "__name__", str(type(owner)))
)
def test_every_private_name_is_there(owner: Any) -> None:
    missing = [name for name in USED[owner].split() if not hasattr(owner, name)]
    assert not missing, (
        f"{owner} of Numba {numba.__version__} has no {', '.join(missing)}, which kernels/cache.py"
        " or kernels/compiled.py uses: adapt it before the pin in pyproject.toml is moved"
    )
