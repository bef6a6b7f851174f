"""Speed of kernels compiled for a level of CPUs, against those compiled for this very CPU.

``python -m benchmarks levels``: for each case, a process a side that are asked in turns. Prints the
median of the rounds' ratios, and exits with 1 where one is above the bar. With ``--cpu znver3`` the
other side is compiled for that CPU of the same level, with all that LLVM knows of it: for znver3 or
x86-64-v3 on a machine with AVX-512.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.problems import Case, data_for
from kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64
from service.process.levels import LEVELS, present

ROUNDS = 9
BAR = 1.05
# Of half a megabyte, so that it is the code that is measured, not the memory; each way through the
# kernels once.
_CASES = (
    *(Case((128, 1000), dtype) for dtype in (FLOAT32, BFLOAT16, FLOAT16, FLOAT64)),
    Case((12_000, 10)),
    Case((1_200, 100)),
    Case((1, 19, 128, 64)),
    Case((16, 8000), wants="gradient"),
    Case((4, 5), latency=True),
)
# Processes a side, one after the other: where the pages of one happen to lie decides up to 10 %.
_PROCESSES = 3
_TURN_SECONDS = 0.02
_ROOT = Path(__file__).resolve().parent.parent


def main(
    level: str | None = None,
    rounds: int | None = None,
    case: str | None = None,
    cpu: str | None = None,
) -> int:
    """Compare ``level`` (this CPU's best, if None) with native kernels; returns the exit status."""
    found = present()
    chosen = level or next(iter(found), "")
    if chosen not in found:
        print(f"this CPU has the levels {', '.join(found) or 'none'}, not {chosen}")
        return 2
    pairs: dict[Case, list[tuple[float, float]]] = {
        each: [] for each in _CASES if case is None or case in each.name
    }
    variables = LEVELS[chosen].environment
    other = {} if cpu is None else LEVELS[chosen]._replace(cpu=cpu, without=()).environment
    for _ in range(_PROCESSES):
        with _side(other) as native, _side(variables) as shipped:
            for each, measured in pairs.items():
                number = _CASES.index(each)
                measured += [(shipped(number), native(number)) for _ in range(rounds or ROUNDS)]
    worst = 0.0
    for each, measured in pairs.items():
        ratio = statistics.median(one / other for one, other in measured)
        seconds = statistics.median(other for _, other in measured)
        verdict = "within" if ratio <= BAR else "MISSES"
        print(
            f"{each.name:<26} {cpu or 'native'} {seconds * 1e6:8.1f} us,"
            f" {chosen} {ratio:.3f} of it: {verdict} the bar of {BAR}"
        )
        worst = max(worst, ratio)
    return int(worst > BAR)


@contextmanager
def _side(variables: Mapping[str, str]) -> Iterator[_Ask]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.levels"],
        cwd=_ROOT,
        # On one thread: whichever core is late, it is not the code's fault.
        env={**os.environ, "NUMBA_NUM_THREADS": "1", **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield _Ask(process)
    finally:
        process.kill()
        process.communicate()


class _Ask:
    """Seconds of a call of a case, measured by another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, number: int) -> float:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{number}\n")
        stdin.flush()
        return float(json.loads(stdout.readline()))


def _answer() -> None:
    """Time the cases that the standard input names, a number a line."""
    from benchmarks.kernel.contestants import OURS

    calls = {}
    for line in sys.stdin:
        number = int(line)
        if number not in calls:
            calls[number] = OURS.enter(data_for(_CASES[number])).call
            calls[number]()
        print(json.dumps(_seconds(calls[number])), flush=True)


def _seconds(call: Callable[[], Any]) -> float:
    """CPU time of a call: the mean of as many as fill a turn.

    Of this thread, which computes alone: a neighbour on the same core is not counted.
    """
    call()
    count, started = 0, time.thread_time()
    while (elapsed := time.thread_time() - started) < _TURN_SECONDS:
        for _ in range(10):
            call()
        count += 10
    return elapsed / count


if __name__ == "__main__":
    _answer()
