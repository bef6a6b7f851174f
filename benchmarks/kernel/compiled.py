"""Kernels of benchmark cases, compiled by another process than the one that measures.

The one that measures loads them, as a server does. In a process that had just compiled them, the
same kernels took up to 1.5 times as long (2048x32000 bfloat16, 2026-11-30).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress

from benchmarks.kernel.contestants import OURS, PLAIN, CannotRun
from benchmarks.problems import CASES, Case, data_for


def compile_apart(cases: Iterable[Case]) -> None:
    """Have the kernels of ``cases`` in the cache. Raises ``CalledProcessError``."""
    names = [case.name for case in cases]
    subprocess.run([sys.executable, "-m", __name__, *names], check=True)


def _main(names: list[str]) -> None:
    for case in CASES:
        if case.name in names:
            data = data_for(case.smaller())
            for contestant in (OURS, PLAIN):
                with suppress(CannotRun):
                    contestant.enter(data).call()


if __name__ == "__main__":
    _main(sys.argv[1:])
