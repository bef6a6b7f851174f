"""Seconds from the command to ready, with an empty and a warm compile cache.

``python -m benchmarks cold`` exits with 1 where a bar is missed.
"""

from __future__ import annotations

import sys
import tempfile
import time

from benchmarks.server import running

# Seconds at most, by state of the cache.
_BARS = {"empty": 60.0, "warm": 4.0}


def main() -> int:
    """Print both times; returns 0 if both are within their bars."""
    missed = 0
    with tempfile.TemporaryDirectory() as cache:
        for state, bar in _BARS.items():
            started = time.perf_counter()
            with running(NUMBA_CACHE_DIR=cache):
                seconds = time.perf_counter() - started
            verdict = "within" if seconds <= bar else "MISSES"
            print(
                f"{state:>5} cache: ready after {seconds:5.1f} s, {verdict} the bar of {bar:.0f} s"
            )
            missed += seconds > bar
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
