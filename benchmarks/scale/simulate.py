"""Weak scaling from 1 to 4096 workers, simulated from costs that are measured in the same run.

``python -m benchmarks.scale.simulate``: measured are the seconds of pieces on one core; those that
a piece takes of the driver: task, result, journal and merge; and those of the merge of parts'
journals. Simulated are stragglers and failures, which are options. The ways are one driver, and
parts with a driver each (``--part``), whose journals are merged at the end or while others run.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.scale.costs import EACH, PARTS, Costs, measured, scored
from service.bulk.cuts import LARGEST

WORKERS = (1, 16, 64, 256, 512, 1024, 2048, 4096)
BAR = 0.95
# Workers of a pod, and pieces of a worker, at most, where each is an event.
POD, MOST = 4, 256
# Large pieces are so many times as large.
LARGE = 4


class Trouble(NamedTuple):
    """Stragglers: their share and how slow they are; failures: seconds between two of a worker, and
    until it is back; seconds until a pod scores.
    """

    share: float
    slow: float
    between: float
    back: float
    start: float


def one_driver(
    workers: int, each: int, times: list[float], driver: float, trouble: Trouble, seed: int
) -> float:
    """Seconds of ``each`` pieces a worker, which one driver gives to whoever has room."""
    rng = random.Random(seed)
    slowness = _slowness(workers, trouble, rng)
    left, now = workers * each, 0.0
    waiting: list[deque[float]] = [deque() for _ in range(workers)]
    for _ in range(EACH):
        for queue in waiting:
            if left:
                left, now = left - 1, now + driver
                queue.append(now)
    ends = [(0.0, number) for number in range(workers)]
    heapq.heapify(ends)
    last = 0.0
    while ends:
        at, number = heapq.heappop(ends)
        queue = waiting[number]
        if left and len(queue) < EACH:
            # The driver takes the result, and gives the next piece.
            left, now = left - 1, max(now, at) + driver
            queue.append(now)
        if not queue:
            continue
        begin = max(at, queue.popleft())
        seconds = rng.choice(times) * slowness[number]
        if rng.random() < seconds / trouble.between:
            left += 1 + len(queue)  # this piece and those that wait for the worker go to others
            queue.clear()
            end = begin + rng.random() * seconds + trouble.back
        else:
            end = begin + seconds
            last = max(last, end)
        heapq.heappush(ends, (end, number))
    return max(last, now)


def in_parts(
    workers: int, each: int, times: list[float], costs: Costs, trouble: Trouble, seed: int,
    along: bool,
) -> float:  # fmt: skip
    """Seconds of parts with a driver each, which pods take in turn, and of the merge.

    ``along``: parts are merged while others run, else at the end.
    """
    rng = random.Random(seed)
    pods, of_pod = max(1, workers // POD), min(POD, workers)
    slowness = _slowness(pods, trouble, rng)
    parts = pods * min(PARTS, each)
    count = workers * each / parts
    free = [(0.0, number) for number in range(pods)]
    done = []
    for _ in range(parts):
        at, number = heapq.heappop(free)
        seconds = max(statistics.fmean(times) * slowness[number] / of_pod, costs.part) * count
        # The slowest of the processes ends the part.
        seconds += rng.choice(times) * slowness[number] + trouble.start
        if rng.random() < seconds * of_pod / trouble.between:
            seconds += trouble.back + rng.choice(times)  # it goes on from its journal
        done.append(at + seconds)
        heapq.heappush(free, (at + seconds, number))
    merge = costs.journal + count * costs.merge
    if not along:
        return max(done) + trouble.start + parts * merge
    # In order, and again and again: those that are done when it begins.
    now, at = 0.0, 0
    while at < parts:
        now = max(now, done[at]) + trouble.start
        begun = now
        while at < parts and done[at] <= begun:
            at, now = at + 1, now + merge
    return now


def _slowness(workers: int, trouble: Trouble, rng: random.Random) -> list[float]:
    slow = round(workers * trouble.share)
    found = [trouble.slow] * slow + [1.0] * (workers - slow)
    rng.shuffle(found)
    return found


Way = Callable[[int], float]


def ways(
    times: list[float], of: dict[int, Costs], trouble: Trouble, seconds: float
) -> dict[str, Way]:
    """Share of linear scaling of each way, by workers; each of these has work for ``seconds``."""
    found: dict[str, Way] = {}
    for large, costs in of.items():
        name = f"{LARGEST * large >> 20} MiB"
        case = ([each * large for each in times], costs, trouble, seconds)
        found[f"one, {name}"] = partial(_of_one, *case)
        found[f"parts, {name}"] = partial(_of_parts, *case, False)
        found[f"along, {name}"] = partial(_of_parts, *case, True)
    return found


def _of_one(
    times: list[float], costs: Costs, trouble: Trouble, seconds: float, workers: int
) -> float:
    mean = statistics.fmean(times)
    each = min(max(round(seconds / mean), EACH), MOST)
    return each * mean / one_driver(workers, each, times, costs.driver, trouble, 1)


def _of_parts(
    times: list[float], costs: Costs, trouble: Trouble, seconds: float, along: bool, workers: int
) -> float:
    mean = statistics.fmean(times)
    each = max(round(seconds / mean), EACH)
    return each * mean / in_parts(workers, each, times, costs, trouble, 2, along)


def table(chosen: dict[str, Way]) -> float:
    """Print the share of each way; returns that of the most workers, in the way of the docs."""
    print(f"{'workers':>8} " + " ".join(f"{name:>16}" for name in chosen))
    held = dict.fromkeys(chosen, 0)
    share = 0.0
    for workers in WORKERS:
        shares = {name: way(workers) for name, way in chosen.items()}
        print(f"{workers:8} " + " ".join(f"{each:16.3f}" for each in shares.values()), flush=True)
        held |= {name: workers for name, each in shares.items() if each >= BAR}
        share = [*shares.values()][-1]
    print("at least", BAR, "up to:", ", ".join(f"{name}: {most}" for name, most in held.items()))
    return share


def main() -> int:
    """Measure, simulate and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pieces", type=int, default=8, help="that are scored")
    parser.add_argument("--kept", type=int, default=20_000, help="that are kept and merged")
    parser.add_argument("--each", type=float, default=86400.0, help="seconds of a worker's work")
    parser.add_argument("--stragglers", type=float, default=0.01, help="share of the workers")
    parser.add_argument("--slow", type=float, default=2.0, help="times as slow are stragglers")
    parser.add_argument("--between", type=float, default=30 * 86400.0,
                        help="seconds between two failures of a worker")  # fmt: skip
    parser.add_argument("--back", type=float, default=120.0, help="seconds until it is back")
    parser.add_argument("--start", type=float, default=10.0, help="seconds until a pod scores")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0, 200e6],
                        help="bytes a second that a worker can read; 0: warm files")  # fmt: skip
    given = parser.parse_args()
    trouble = Trouble(given.stragglers, given.slow, given.between, given.back, given.start)
    of = {}
    with tempfile.TemporaryDirectory() as folder:
        pieces = scored(Path(folder) / "pieces", given.pieces)
        for large in (1, LARGE):
            (Path(folder) / str(large)).mkdir()
            of[large] = measured(Path(folder) / str(large), LARGEST * large, given.kept)
    print(f"a piece of 256 MiB: {statistics.median(pieces) * 1e3:.1f} ms on this machine"
          f" ({min(pieces) * 1e3:.1f} to {max(pieces) * 1e3:.1f})")  # fmt: skip
    for large, costs in of.items():
        driver, part, merge, journal = (each * 1e6 for each in costs)
        print(f"of pieces of {LARGEST * large >> 20} MiB, us: driver, with its journal and merge,"
              f" {driver:.0f}; of a part {part:.0f}; merge of journals {merge:.1f}, and"
              f" {journal:.0f} a journal")  # fmt: skip
    least = 1.0
    for rate in given.rates:
        print(f"\nread at {rate / 1e6:.0f} MB/s a worker" if rate else "\nwarm files")
        times = [max(seconds, LARGEST / rate if rate else 0.0) for seconds in pieces]
        share = table(ways(times, of, trouble, given.each))
        print(f"{WORKERS[-1]} workers: {share:.3f} of linear (bar {BAR})")
        least = min(least, share)
    return 0 if least >= BAR else 1


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main())
