"""Benchmarks of lossd: all parts that need no GPU, or one by name.

The exit status is 0 where every bar is met.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import cold_start, demo, levels, operable
from benchmarks.cuda import main as cuda
from benchmarks.cuda import table
from benchmarks.hostile import main as hostile
from benchmarks.http import main as http
from benchmarks.kernel import main as kernel
from service.process.levels import LEVELS


@dataclass(frozen=True)
class _Suite:
    """Benchmarks of cases that can be picked by name: ``run(name, rounds, quick)``."""

    about: str
    rounds: int
    run: Callable[[str | None, int | None, bool], int]


_SUITES = {
    "kernels": _Suite("CPU kernels against memory and other libraries", kernel.ROUNDS, kernel.run),
    "http": _Suite("requests against raw sockets, FastAPI and PyTorch", http.ROUNDS, http.run),
    "hostile": _Suite("slow, greedy, vanishing and costly clients", hostile.ROUNDS, hostile.run),
}
# Parts without cases.
_OTHERS = {
    "cold": "seconds from the command to ready: empty and warm compile cache, shipped kernels",
    "cuda": "CUDA kernels against PyTorch and Liger, on a GPU",
    "cuda-table": "registers, spills and occupancy of the CUDA kernels, compiled without a GPU",
    "levels": "kernels compiled for a level of CPUs (lossd warm) against those for this CPU",
    "operable": "what metrics and logs cost a small request, against another commit's checkout",
    "demo": "three requests to a server of its own, checked against NumPy",
}


def main(arguments: list[str] | None = None) -> int:
    """Run what the ``arguments`` name; returns the exit status."""
    chosen = _parser().parse_args(arguments)
    match chosen.part:
        case None:
            statuses = [suite.run(None, None, False) for suite in _SUITES.values()]
            return max(*statuses, cold_start.main())
        case "cold":
            return cold_start.main()
        case "cuda":
            return cuda.main(quick=chosen.quick, only=chosen.case)
        case "cuda-table":
            return table.main()
        case "levels":
            return levels.main(chosen.level, chosen.rounds, chosen.case, chosen.cpu)
        case "operable":
            return operable.main(chosen.against, chosen.rounds)
        case "demo":
            return demo.main()
    return _SUITES[chosen.part].run(chosen.case, chosen.rounds, chosen.quick)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parts = parser.add_subparsers(dest="part", title="parts", metavar="part")
    for name, suite in _SUITES.items():
        part = parts.add_parser(name, help=suite.about)
        part.add_argument("--case", metavar="NAME", help="only cases with this in their names")
        part.add_argument("--rounds", type=int, metavar="N", help=f"rounds ({suite.rounds})")
        part.add_argument("--quick", action="store_true", help="small and few: no verdict")
    for name, about in _OTHERS.items():
        part = parts.add_parser(name, help=about)
        if name == "operable":
            part.add_argument("--against", metavar="PATH", help="checkout of the commit before")
            part.add_argument("--rounds", type=int, metavar="N", default=operable.ROUNDS)
        if name == "cuda":
            part.add_argument("--case", metavar="NAME", help="only cases with this in their names")
            part.add_argument("--quick", action="store_true", help="few rows")
        if name == "levels":
            part.add_argument(
                "--cpu", metavar="NAME", help="LLVM's name of the CPU to compare with"
            )
            part.add_argument("--level", choices=LEVELS, help="by default this CPU's best")
            part.add_argument("--case", metavar="NAME", help="only cases with this in their names")
            part.add_argument("--rounds", type=int, metavar="N", help=f"rounds ({levels.ROUNDS})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
