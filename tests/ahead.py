"""Kernels of the tests, compiled in two processes before the first test: no test waits for another.

Where one is compiled at its first use, the other worker, or a server, soon needs the same one.
Kernels of one type of logits come from one process, which types and lowers what these share once.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from kernels import dtypes, warm
from kernels.compiling import Job
from kernels.specialisations import (
    DivergenceSpecialisation,
    Specialisation,
    SummarySpecialisation,
)
from tests import zoo

ROOT = Path(__file__).parents[1]
READER = Job("the reader of JSON", "service.codecs.json.scanner", "compiled")
# Types of logits for each process: the shares take about the same time.
SHARES = (("float32", "bfloat16"), ("float64", "float16"))


def jobs(name: str) -> Iterator[Job]:
    """Jobs for logits of the type ``name``: those of which more than one file has tests."""
    for capped, likeliest, having in (
        (False, False, dtypes.FLOATS),
        (True, False, zoo.WITH_SOFTCAP),
        (False, True, zoo.WITH_LIKELIEST),
        (True, True, zoo.WITH_BOTH),
    ):
        if name in {dtype.name for dtype in having}:
            yield warm.job(Specialisation(False, name, name, capped, likeliest))
    yield warm.job(Specialisation(True, name, name, False))
    yield warm.job(Specialisation(False, name, name, False, binary=True))
    if name != "float16":
        yield warm.job(DivergenceSpecialisation(name, name, False, False))
    if name in ("float32", "float64"):
        yield warm.job(DivergenceSpecialisation(name, name, False, True))
    else:
        yield warm.job(SummarySpecialisation(name))
    if name == "float64":
        yield READER


def compile_share(number: int) -> None:
    """Compile all of a share in this process, or load it from the cache."""
    gc.disable()  # collections while a kernel is compiled took 14 % of the time
    for name in SHARES[number]:
        for job in jobs(name):
            job.run()
            gc.collect()


def compile_all() -> None:
    """Compile every share. Raises ``CalledProcessError``."""
    print("compiling kernels, unless they are in the cache", flush=True)
    commands = [[sys.executable, "-m", __name__, str(number)] for number in range(len(SHARES))]
    processes = [subprocess.Popen(command, cwd=ROOT) for command in commands]
    for process in processes:
        process.wait()
    for process in processes:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)


if __name__ == "__main__":
    compile_share(int(sys.argv[1]))
