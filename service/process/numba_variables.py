"""Environment variables of Numba: values with which it fails are reported in a sentence."""

from __future__ import annotations

import os
from collections.abc import Mapping

_LAYERS = ("default", "safe", "threadsafe", "forksafe", "tbb", "omp", "workqueue")
_BACKENDS = ("omp", "tbb", "workqueue")


def fault(environment: Mapping[str, str]) -> str | None:
    """Describe the first variable with which Numba would fail, and the values it may have."""
    threads = environment.get("NUMBA_NUM_THREADS")
    if threads is not None and not (threads.strip().isdecimal() and int(threads) > 0):
        return _said("NUMBA_NUM_THREADS", threads, "a whole number of threads, 1 or more")
    layer = environment.get("NUMBA_THREADING_LAYER")
    if layer is not None and layer.lower() not in _LAYERS:
        return _said("NUMBA_THREADING_LAYER", layer, f"one of {', '.join(_LAYERS)}")
    order = environment.get("NUMBA_THREADING_LAYER_PRIORITY")
    if order is not None and sorted(order.split()) != sorted(_BACKENDS):
        right = f"{', '.join(_BACKENDS)} in any order, separated by spaces"
        return _said("NUMBA_THREADING_LAYER_PRIORITY", order, right)
    compiled = environment.get("NUMBA_DISABLE_JIT")
    if compiled is not None and compiled.strip().lstrip("+-").strip("0_"):
        return _said("NUMBA_DISABLE_JIT", compiled, "0 or unset: the kernels run only compiled")
    return None


def behind(error: Exception) -> str | None:
    """Describe the cause of ``error``, where that is known to be one of the variables."""
    if "threading layer" not in str(error).lower():
        return None
    layer = os.environ.get("NUMBA_THREADING_LAYER")
    now = repr(layer) if layer else "not set"
    return (
        f"no threads for the kernels: set NUMBA_THREADING_LAYER, which is {now},"
        " to one that is installed, such as omp or workqueue, or unset it"
    )


def named(environment: Mapping[str, str]) -> str:
    """List the variables of Numba's that are set, as the end of a sentence about a failure."""
    found = [f"{name}={value}" for name, value in environment.items() if name.startswith("NUMBA_")]
    return f"; set are {', '.join(sorted(found))}" if found else ""


def _said(name: str, value: str, right: str) -> str:
    return f"{name} is {value[:200]!r}: it must be {right}"
