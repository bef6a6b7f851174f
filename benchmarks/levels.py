"""Speed of kernels compiled for a level of CPUs, against those compiled for this very CPU.

``python -m benchmarks levels``: for each case, a process a side that are asked in turns. Prints the
median of the rounds' ratios, and exits with 1 where one is above the bar.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.problems import CASES, GRADIENT, STRIDED, TEN, TINY, Case, data_for
from kernels.dtypes import BFLOAT16, FLOAT16, FLOAT64
from service.process.levels import LEVELS, present

ROUNDS = 15
BAR = 1.05
# Half the problems of a cache, and half of the memory: each way through the kernels once.
_CASES = (
    *(Case((2048, 4000), dtype) for dtype in (CASES[0].dtype, BFLOAT16, FLOAT16, FLOAT64)),
    Case((2048, 1000)),
    TEN.smaller(),
    Case((100_000, 100)),
    STRIDED.smaller(),
    Case((256, 32000), wants=GRADIENT.wants),
    TINY,
)
_ROOT = Path(__file__).resolve().parent.parent


def main(level: str | None = None, rounds: int | None = None, case: str | None = None) -> int:
    """Compare ``level`` (this CPU's best, if None) with native kernels; returns the exit status."""
    found = present()
    chosen = level or next(iter(found), "")
    if chosen not in found:
        print(f"this CPU has the levels {', '.join(found) or 'none'}, not {chosen}")
        return 2
    cases = [each for each in _CASES if case is None or case in each.name]
    worst = 0.0
    with ExitStack() as kept:
        native = kept.enter_context(_side({}))
        shipped = kept.enter_context(_side(LEVELS[chosen].environment))
        for each in cases:
            number = _CASES.index(each)
            pairs = [(shipped(number), native(number)) for _ in range(rounds or ROUNDS)]
            ratio = statistics.median(one / other for one, other in pairs)
            seconds = statistics.median(other for _, other in pairs)
            verdict = "within" if ratio <= BAR else "MISSES"
            print(
                f"{each.name:<28} native {seconds * 1e3:9.4f} ms, {chosen} {ratio:.3f} of it:"
                f" {verdict} the bar of {BAR}",
                flush=True,
            )
            worst = max(worst, ratio)
    return int(worst > BAR)


@contextmanager
def _side(variables: Mapping[str, str]) -> Iterator[_Ask]:
    process = subprocess.Popen(
        [sys.executable, "-m", __name__ if __name__ != "__main__" else "benchmarks.levels"],
        cwd=_ROOT,
        env={**os.environ, **variables},
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
    from benchmarks.kernel.measure import turn

    calls = {}
    for line in sys.stdin:
        number = int(line)
        if number not in calls:
            calls[number] = OURS.enter(data_for(_CASES[number])).call
        print(json.dumps(turn(calls[number])), flush=True)


if __name__ == "__main__":
    _answer()
