"""Time of a loss after a pause, by how OpenMP's threads wait for it.

``python -m benchmarks.kernel.pauses``: losses of two shapes that stay in cache, with pauses between
the calls, in processes whose threads spin as libgomp has them do, spin for less, or sleep.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import numpy as np

import kernels
from service.process import openmp

SHAPES = ((2, 262144), (2048, 1000))
PAUSES = (0.0, 0.0002, 0.002, 0.02)
# Variables of each way to wait. libgomp counts turns of its loop: 3000 are about 25 us.
WAYS: dict[str, dict[str, str]] = {
    "spinning": {},
    "spinning for 25 us": {"GOMP_SPINCOUNT": "3000"},
    "asleep": {openmp.VARIABLE: openmp.ASLEEP},
}
_CALLS, _WARM = 100, 50


def seconds_after(pause: float, shape: tuple[int, int]) -> list[float]:
    """Seconds of each of some losses, after a pause of so many seconds, in order of size."""
    generator = np.random.default_rng(0)
    logits = generator.standard_normal(shape, np.float32)
    labels = generator.integers(0, shape[1], shape[0])
    for _ in range(_WARM):
        kernels.cross_entropy(logits, labels)
    found = []
    for _ in range(_CALLS):
        time.sleep(pause)
        started = time.perf_counter()
        kernels.cross_entropy(logits, labels)
        found.append(time.perf_counter() - started)
    return sorted(found)


def _measure() -> None:
    for shape in SHAPES:
        for pause in PAUSES:
            found = seconds_after(pause, shape)
            middle, late = statistics.median(found), found[len(found) * 9 // 10]
            print(
                f"  {shape[0]} x {shape[1]}, {1e3 * pause:5.1f} ms before each:"
                f" median {1e6 * middle:6.0f} us, nine of ten below {1e6 * late:6.0f} us"
            )


def main() -> None:
    """Print the times of each way to wait, each in a process of its own."""
    names = ("GOMP_SPINCOUNT", openmp.VARIABLE)
    plain = {name: value for name, value in os.environ.items() if name not in names}
    for way, variables in WAYS.items():
        print(way, flush=True)
        command = [sys.executable, "-m", "benchmarks.kernel.pauses", "measure"]
        subprocess.run(command, env={**plain, **variables}, check=True)


if __name__ == "__main__":
    _measure() if sys.argv[1:] else main()
