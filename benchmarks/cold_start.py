"""Seconds from the command to ready: with an empty and a warm compile cache, and shipped kernels.

``python -m benchmarks cold`` exits with 1 where a bar is missed. Shipped kernels are those of
``lossd warm --target all``, without which the last line is left out.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping

from llvmlite import binding

from benchmarks.server import running
from service.process import levels

# Seconds at most, by state of the cache.
_BARS = {"empty": 60.0, "warm": 4.0, "shipped": 3.0}
# Kernels are compiled for this very CPU, whatever the installation holds.
_NATIVE = {levels.CPU_NAME: binding.get_host_cpu_name()}


def main() -> int:
    """Print the times; returns 0 if all are within their bars."""
    with tempfile.TemporaryDirectory() as cache:
        late = [_late(state, cache, _NATIVE) for state in ("empty", "warm")]
    if levels.environment(os.environ):
        with tempfile.TemporaryDirectory() as cache:
            late.append(_late("shipped", cache, {}))
    return int(any(late))


def _late(state: str, cache: str, variables: Mapping[str, str]) -> bool:
    started = time.perf_counter()
    with running(NUMBA_CACHE_DIR=cache, **variables):
        seconds = time.perf_counter() - started
    bar = _BARS[state]
    verdict = "within" if seconds <= bar else "MISSES"
    print(f"{state:>7} cache: ready after {seconds:5.1f} s, {verdict} the bar of {bar:.0f} s")
    return seconds > bar


if __name__ == "__main__":
    sys.exit(main())
