"""Run the kernel cases and print their results: ``python -m benchmarks kernels``."""

from __future__ import annotations

import math

from benchmarks.bars import bars_table
from benchmarks.kernel.compiled import compile_apart
from benchmarks.kernel.contestants import CONTESTANTS, OURS
from benchmarks.kernel.measure import Outcomes, run_case, temporaries
from benchmarks.kernel.report import case_table, heading, markdown
from benchmarks.kernel.targets import bars
from benchmarks.kernel.undisturbed import Pace
from benchmarks.problems import CASES, LARGE, Case

ROUNDS = 7
QUICK_ROUNDS = 3
# Seconds in all for turns that are repeated, as other work slowed the machine.
REPEATS = 240.0


def run(wanted: str | None = None, rounds: int | None = None, quick: bool = False) -> int:
    """Run every case, or those with ``wanted`` in their names.

    Returns the exit status: 0 if our results are right and no bar is missed. ``quick`` tries the
    benchmark itself: an eighth of the rows, no verdict.
    """
    cases = [case for case in CASES if wanted is None or wanted in case.name]
    if not cases:
        print(f"no case is named {wanted}; there are: {', '.join(case.name for case in CASES)}")
        return 2
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    compile_apart(cases)
    results: dict[Case, Outcomes] = {}
    pace = Pace(0.0 if quick else REPEATS)
    for case in cases:
        measured = case.smaller() if quick else case
        results[case] = run_case(measured, CONTESTANTS, rounds, pace)
        print("\n".join(case_table(measured, results[case])), end="\n\n", flush=True)
    print("\n".join(heading(rounds, pace)), end="\n\n")
    if quick:
        print("quick: fewer rows and rounds than are compared, so no verdict")
        return 0
    allocated, grown = temporaries(LARGE) if LARGE in results else (math.nan, math.nan)
    verdicts = bars(results, grown, allocated)
    print("\n".join(bars_table(verdicts)), end="\n\n")
    print("\n".join(markdown(results)))
    wrong = any(outcomes[OURS.name].refused for outcomes in results.values())
    return int(wrong or any(bar.verdict == "MISSED" for bar in verdicts))
