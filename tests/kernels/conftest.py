"""Poisoned memory for all tests of the kernels: reads before the first write give NaN, or no index.

Before each launch all scratch is filled with NaN (integers: NOWHERE), and each array of results
when it is allocated; on the simulated GPU all buffers and shared memory. LOSSD_POISON=0 turns this
off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from kernels import dtypes, options, plan_cache, planned_loss, reduce
from kernels.cpu.arguments import Operands
from kernels.cpu.launch import divergence, loss, planned, results, scratch, threads, views
from tests import zoo

POISONED = os.environ.get("LOSSD_POISON", "1") != "0"
# A whole number that is no index of ours, and that no count reaches.
NOWHERE = 2**62 + 12345


def fill(array: Any) -> Any:
    """``array`` filled with NaN, NOWHERE, or bits that are all set."""
    kind = np.dtype(array.dtype)
    if kind.kind == "f":
        array[...] = np.nan
    elif kind.itemsize == 8:
        array[...] = NOWHERE
    elif array.size:
        array.view(np.uint8)[...] = 0xFF  # of a 16-bit float a NaN
    return array


class _NumPy:
    """NumPy with ``empty`` and ``empty_like`` that fill."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, *arguments: Any, **options: Any) -> Any:
        return fill(np.empty(*arguments, **options))

    def empty_like(self, *arguments: Any, **options: Any) -> Any:
        return fill(np.empty_like(*arguments, **options))


def _fill_scratch(operands: Operands) -> None:
    for array in operands.scratch:
        fill(array)
    if operands.likeliest is not None:
        for name in ("maxima", "row", "marks", "keys", "ranks", "values", "places"):
            fill(getattr(operands.likeliest, name))


def _poison_launches(patch: pytest.MonkeyPatch) -> None:
    run, ready = threads.run, planned.ready

    def run_poisoned(
        kernel: Any, key: Any, workers: int, operands: Operands, **shares: Any
    ) -> None:
        _fill_scratch(operands)
        run(kernel, key, workers, operands, **shares)

    def ready_poisoned(*arguments: Any) -> Any:
        made = ready(*arguments)
        if made is None:
            return None

        def run(*arrays: Any) -> int:
            _fill_scratch(made.memory[1].operands)
            return made.run(*arrays)

        return made._replace(run=run)

    for module in (loss, divergence):
        patch.setattr(module, "run", run_poisoned)
    patch.setattr(planned_loss, "ready", ready_poisoned)


class _Filled(dict[Any, Any]):
    """Arrays by key, filled when they are added."""

    def __setitem__(self, key: Any, array: Any) -> None:
        super().__setitem__(key, fill(array))


def _poison_simulator(patch: pytest.MonkeyPatch) -> None:
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    from kernels.cuda.device import memory

    take, start = memory.Buffers.take, FakeCUDAShared.__init__

    def take_poisoned(self: Any, dtype: Any, count: int) -> Any:
        device, pinned = take(self, dtype, count)
        if count:
            device[:] = fill(pinned)
        return device, pinned

    def start_poisoned(self: Any, size: int) -> None:
        start(self, size)
        self._allocations = _Filled()

    patch.setattr(memory.Buffers, "take", take_poisoned)
    patch.setattr(FakeCUDAShared, "__init__", start_poisoned)


@pytest.fixture(autouse=True, scope="module")
def poisoned() -> Iterator[bool]:
    """Poisons the memory of a module's tests; true unless the setting turns it off."""
    with pytest.MonkeyPatch.context() as patch:
        if POISONED:
            _poison_launches(patch)
            for module in (
                loss,
                divergence,
                results,
                scratch,
                views,
                options,
                reduce,
                plan_cache,
                planned_loss,
            ):
                patch.setattr(module, "np", _NumPy())
            if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" and "numba.cuda" in sys.modules:
                _poison_simulator(patch)
        yield POISONED


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the cases with a softcap of a type that the tests have no such kernel of."""
    out = {item for item in items if not _has_kernel(getattr(item, "callspec", None))}
    if out:
        config.hook.pytest_deselected(items=list(out))
        items[:] = [item for item in items if item not in out]


def _has_kernel(case: Any) -> bool:
    if case is None or case.params.get("dtype", dtypes.FLOAT32) in zoo.WITH_SOFTCAP:
        return True
    chosen = case.params.get("options", case.params.get("name"))
    given = case.params.get("scaling", {"softcap": case.params.get("softcap")})
    return chosen not in ("softcap", "capped") and given.get("softcap") is None
