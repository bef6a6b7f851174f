"""``python -m benchmarks``: all of them, or one by name."""

from __future__ import annotations

import argparse
import sys

from benchmarks import cold_start
from benchmarks.cuda import main as cuda
from benchmarks.cuda import table
from benchmarks.kernel import main as kernel


def main(arguments: list[str] | None = None) -> int:
    """0 where every bar is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="which", metavar="kernels | cold | cuda | cuda-table")
    kernels = commands.add_parser("kernels", help="the kernels against memory and their peers")
    kernels.add_argument("--case", metavar="NAME", help="only cases with this in their names")
    kernels.add_argument("--rounds", type=int, metavar="N", help=f"turns each ({kernel.ROUNDS})")
    kernels.add_argument("--quick", action="store_true", help="try it out: few rows, few rounds")
    commands.add_parser("cold", help="seconds from the command to ready")
    commands.add_parser(
        "cuda-table", help="registers and spills of the CUDA kernels, compiled here"
    )
    gpu = commands.add_parser("cuda", help="the CUDA kernels and their peers, on a GPU")
    gpu.add_argument("--quick", action="store_true", help="try it out: few rows")
    chosen = parser.parse_args(arguments)
    if chosen.which == "cuda-table":
        return table.main()
    if chosen.which == "cuda":
        return cuda.main(quick=chosen.quick)
    statuses = []
    if chosen.which == "kernels":
        statuses.append(kernel.run(chosen.case, chosen.rounds, chosen.quick))
    if chosen.which is None:
        statuses.append(kernel.run())
    if chosen.which in (None, "cold"):
        statuses.append(cold_start.main())
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
