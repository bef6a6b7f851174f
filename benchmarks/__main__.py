"""``python -m benchmarks``: all of them, or one by name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import cold_start
from benchmarks.cuda import main as cuda
from benchmarks.cuda import table
from benchmarks.hostile import main as fire
from benchmarks.http import main as wire
from benchmarks.kernel import main as kernel


@dataclass(frozen=True)
class _Suite:
    """Benchmarks of cases that can be picked by name: ``run(name, rounds, quick)``."""

    about: str
    rounds: int
    run: Callable[[str | None, int | None, bool], int]


_OTHERS = ("cold", "cuda", "cuda-table")
_SUITES = {
    "kernels": _Suite("the kernels against memory and their peers", kernel.ROUNDS, kernel.run),
    "wire": _Suite("requests against raw sockets and FastAPI", wire.ROUNDS, wire.run),
    "fire": _Suite("slow, greedy and vanishing clients", fire.ROUNDS, fire.run),
}


def main(arguments: list[str] | None = None) -> int:
    """0 where every bar is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="which", metavar=" | ".join([*_SUITES, *_OTHERS]))
    for name, suite in _SUITES.items():
        command = commands.add_parser(name, help=suite.about)
        command.add_argument("--case", metavar="NAME", help="only cases with this in their names")
        command.add_argument("--rounds", type=int, metavar="N", help=f"turns each ({suite.rounds})")
        command.add_argument("--quick", action="store_true", help="try it out: no verdict")
    commands.add_parser("cold", help="seconds from the command to ready")
    commands.add_parser(
        "cuda-table", help="registers and spills of the CUDA kernels, compiled here"
    )
    gpu = commands.add_parser("cuda", help="the CUDA kernels and their peers, on a GPU")
    gpu.add_argument("--case", metavar="NAME", help="only cases with this in their names")
    gpu.add_argument("--quick", action="store_true", help="try it out: few rows")
    chosen = parser.parse_args(arguments)
    if chosen.which == "cold":
        return cold_start.main()
    if chosen.which == "cuda-table":
        return table.main()
    if chosen.which == "cuda":
        return cuda.main(quick=chosen.quick, only=chosen.case)
    if chosen.which is not None:
        return _SUITES[chosen.which].run(chosen.case, chosen.rounds, chosen.quick)
    statuses = [suite.run(None, None, False) for suite in _SUITES.values()]
    return max(*statuses, cold_start.main())


if __name__ == "__main__":
    sys.exit(main())
