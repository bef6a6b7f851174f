"""Run the HTTP cases and print their results: ``python -m benchmarks http``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date

from benchmarks.bars import Bar, bars_table
from benchmarks.http import cases
from benchmarks.http.cases import Contestants, Servers
from benchmarks.http.measure import Outcome, interleaved
from benchmarks.http.peak import peak
from benchmarks.machine import machine, versions

ROUNDS = 7
_COMPARED = ("numba", "uvicorn", "fastapi", "pydantic", "torch")
QUICK_ROUNDS = 2


@dataclass(frozen=True)
class Pair:
    """One line of the table: our speed relative to a rival's, or (``of_it``) our time."""

    what: str
    ours: str
    rival: str
    bar: float
    goal: float
    of_it: bool = False


@dataclass(frozen=True)
class Case:
    """A case: its contestants, the unit of their speed, and its bars."""

    name: str
    contestants: Callable[[Servers, bool], AbstractContextManager[Contestants]]
    speed: Callable[[float], str]
    pairs: tuple[Pair, ...]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _rate(seconds: float) -> str:
    return f"{cases.REQUESTS / seconds:.0f} /s"


CASES = (
    Case(
        "256 MB float32",
        cases.large,
        _milliseconds,
        (
            Pair("256 MB body, share of", cases.OURS, cases.SINK, 0.70, 0.90),
            Pair("256 MB body, against", cases.OURS, cases.PYTORCH, 4.0, 6.0),
            Pair("256 MB shared, share of", cases.SHARED, cases.READ, 0.5, 0.9),
        ),
    ),
    Case(
        "report of 131 MB bfloat16",
        cases.reported,
        _milliseconds,
        (Pair("report of 2048x32000 bfloat16, time of", cases.REPORT, cases.LOSS, 1.3, 1.1, True),),
    ),
    Case(
        "64x1000 JSON",
        cases.middle,
        _milliseconds,
        (Pair("64x1000 JSON, against", cases.OURS, cases.PYTORCH, 8.0, 15.0),),
    ),
    Case(
        "4x5 JSON",
        cases.small,
        _milliseconds,
        (Pair("4x5 JSON, time of", cases.OURS, cases.BARE, 1.3, 1.0, of_it=True),),
    ),
    Case(
        f"4x5 binary, {cases.CONNECTIONS} connections",
        cases.many,
        _rate,
        (Pair("requests/s of 4x5 V2 binary, share of", cases.V2, cases.BARE, 0.7, 1.0),),
    ),
)
PEAK = "peak memory of a 1 GB request"


def run(wanted: str | None = None, rounds: int | None = None, quick: bool = False) -> int:
    """Run every case, or those with ``wanted`` in their names.

    Returns the exit status: 0 if our answers are right and no bar is missed. ``quick`` tries the
    benchmark itself: small bodies, few rounds, no verdict.
    """
    names = [*(case.name for case in CASES), PEAK]
    chosen = [name for name in names if wanted is None or wanted in name]
    if not chosen:
        print(f"no case is named {wanted}; there are: {', '.join(names)}")
        return 2
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    table: list[Bar] = []
    wrong = False
    with cases.servers() as servers:
        for case in CASES:
            if case.name in chosen:
                with case.contestants(servers, quick) as contestants:
                    outcomes = interleaved(contestants, rounds)
                print("\n".join(_lines(case, outcomes)), end="\n\n", flush=True)
                table += [_bar(pair, outcomes) for pair in case.pairs]
                wrong |= any(outcomes[pair.ours].refused is not None for pair in case.pairs)
    if PEAK in chosen:
        table.append(peak(quick))
    print(f"{machine()}; {date.today().isoformat()}; {versions(_COMPARED)}")
    print(f"medians of {rounds} interleaved rounds, client and servers on the same cores\n")
    print("\n".join(bars_table(table)))
    if quick:
        print("quick: smaller and fewer than what is compared, so no verdict")
        return int(wrong)
    return int(wrong or any(bar.verdict == "MISSED" for bar in table))


def _bar(pair: Pair, outcomes: Mapping[str, Outcome]) -> Bar:
    ours, rival = outcomes[pair.ours], outcomes[pair.rival]
    ratio = ours.median / rival.median if pair.of_it else rival.median / ours.median
    return Bar(f"{pair.what} {pair.rival}", pair.bar, pair.goal, ratio, "", pair.of_it)


def _lines(case: Case, outcomes: Mapping[str, Outcome]) -> list[str]:
    """Table of one case: a line a contestant."""
    lines = [f"{case.name}", f"  {'':<26}{'median':>12}{'fastest':>12}{'slowest':>12}"]
    for name, outcome in outcomes.items():
        if outcome.refused is not None:
            lines.append(f"  {name:<26}{'-':>12}  {outcome.refused}")
            continue
        times = (outcome.median, min(outcome.seconds), max(outcome.seconds))
        lines.append(f"  {name:<26}" + "".join(f"{case.speed(each):>12}" for each in times))
    return lines
