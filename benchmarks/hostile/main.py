"""Run the attacks and print their results: ``python -m benchmarks hostile``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from benchmarks.bars import Bar, bars_table
from benchmarks.hostile import cases, work
from benchmarks.machine import machine

ROUNDS = 1
CASES: dict[str, Callable[[bool], list[Bar]]] = {
    "slow clients": cases.slow_clients,
    "more than fits": cases.more_than_fits,
    "gone in mid-body": cases.gone,
    "beside a large one": cases.beside_a_large_one,
    "work": work.work,
}


def run(wanted: str | None = None, rounds: int | None = None, quick: bool = False) -> int:
    """Run every case, or those with ``wanted`` in their names, ``rounds`` times.

    Returns the exit status: 0 if no bar is missed. ``quick`` tries the benchmark itself: a tenth
    of the clients, no verdict.
    """
    chosen = {name: case for name, case in CASES.items() if wanted is None or wanted in name}
    if not chosen:
        print(f"no case is named {wanted}; there are: {', '.join(CASES)}")
        return 2
    table: list[Bar] = []
    for case in chosen.values():
        for _ in range(rounds or ROUNDS):
            table += case(quick)
    print(f"{machine()}; {date.today().isoformat()}; clients and server on the same cores\n")
    print("\n".join(bars_table(table)))
    if quick:
        print("quick: fewer than what is to be borne, so no verdict")
        return 0
    return int(any(bar.verdict == "MISSED" for bar in table))
