"""Compiler options of kernels, and what becomes machine code of what they call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from kernels import compiled


@compiled.inlined
def doubled(x: float) -> float:
    return 2.0 * x


@compiled.called
def doubled_by_call(x: float) -> float:
    compiled.never_inlined()
    return doubled(x)


def sum_doubled(values: Any) -> float:
    total = 0.0
    for i in range(values.size):
        total += doubled(values[i]) + doubled_by_call(values[i])
    return total


def _functions() -> set[str]:
    """Functions of this module that are machine code, by their mangled names."""
    engine = numba.njit(doubled).targetctx.codegen()._engine
    return {
        name for name in engine._defined_symbols if name.startswith("_ZN5") and "doubled" in name
    }


def test_only_kernels_become_machine_code_by_themselves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    before = _functions()
    kernel: Any = compiled.kernel(sum_doubled)
    values = np.arange(5.0)
    assert kernel(values) == 4.0 * values.sum()
    made = _functions() - before
    assert {name for name in made if "11sum_doubledB" in name}
    assert {name for name in made if "15doubled_by_callB" in name}, "a part of the kernel's code"
    assert not {name for name in made if "7doubledB" in name}, "it is inlined"


def test_what_a_kernel_inlines_can_be_compiled_alone_later() -> None:
    kernel: Any = compiled.kernel(sum_doubled)
    assert kernel(np.ones(3)) == 12.0

    def both(x: Any) -> Any:
        return doubled(x) + doubled_by_call(x)

    alone: Any = numba.njit(both)
    assert alone(1.5) == 6.0
    assert kernel(np.ones(4)) == 16.0
