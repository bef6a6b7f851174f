"""Weak scaling from 1 to 4096 workers, simulated from costs that are measured in the same run.

``python -m benchmarks.scale.simulate``: measured are the seconds of pieces on one core, and those
that a piece takes of the driver: tasks, results, journal and merge. Simulated are stragglers and
failures, which are options. Three ways are compared: one driver with pieces of 64 MiB, one with
large pieces, and parts with a driver each (``--part``), whose journals are merged afterwards.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np

from benchmarks.scale.shards import written
from service.bulk import work
from service.bulk.journal import Journal
from service.bulk.merging import merged
from service.bulk.plan import Job, Plan, planned
from service.bulk.run import Run
from service.bulk.work import score_piece

CLASSES, PIECE_BYTES = 32_000, 1 << 26
WORKERS = (1, 4, 16, 64, 256, 1024, 4096)
BAR = 0.95
# Pieces of a worker that are in flight, as of the command; workers of a pod, and parts for each.
EACH, POD, PARTS = 2, 4, 64
# Pieces of a worker, at most, where each is an event: small ones, and large ones.
SMALL, LARGE = 64, 256


class Costs(NamedTuple):
    """Measured seconds: of pieces of ``PIECE_BYTES``, one by one; and, of each piece, of a driver,
    of one that only keeps a journal, and of the merge of journals.
    """

    pieces: list[float]
    driver: float
    part: float
    merge: float


class Trouble(NamedTuple):
    """Stragglers: their share and how slow they are; failures: seconds between two of a worker, and
    until it is back; seconds until a pod scores.
    """

    share: float
    slow: float
    between: float
    back: float
    start: float


class _Ready(Executor):
    """Executor that has every result already: what is left is the driver."""

    def __init__(self, results: list[bytes]) -> None:
        self._results, self._at = results, 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(self._results[self._at])
        self._at += 1
        return future


def measured(folder: Path, pieces: int, many: int) -> Costs:
    """Costs of ``pieces`` that are scored, and of ``many`` small ones that are kept and merged."""
    size = pieces * PIECE_BYTES
    paths = [str(path) for path, _ in written(
        folder / "large", size, shards=4, classes=CLASSES, formats=("safetensors",)
    )]  # fmt: skip
    plan = planned(paths, Job({}, {}, 5), {}, PIECE_BYTES)
    work.prepare(plan.samples())
    numba.set_num_threads(1)  # a worker has a core
    seconds: list[float] = []
    for _ in range(2):  # the first time, files and kernels are read
        seconds = []
        for number in range(plan.pieces):
            source = plan.sources[plan.source_of(number)]
            whole = plan.piece(number).stop - plan.piece(number).first == source.each
            started = time.perf_counter()
            score_piece(plan.task(number))
            if whole:
                seconds.append(time.perf_counter() - started)
    # Partials of as many positions as a large piece has, of few classes.
    rows = PIECE_BYTES // (CLASSES * 4)
    small = [str(path) for path, _ in written(
        folder / "small", many * rows * 8, shards=1, classes=2, formats=("safetensors",)
    )]  # fmt: skip
    plan = planned(small, Job({}, {}, 5), {}, rows * 8)
    results = [score_piece(plan.task(number)) for number in range(plan.pieces)]
    return Costs(
        seconds,
        _driver(plan, results, folder / "driver.db", None),
        _driver(plan, results, folder / "part.db", range(plan.pieces)),
        _merge(plan, folder / "part.db"),
    )


def _driver(plan: Plan, results: list[bytes], path: Path, part: range | None) -> float:
    journal = Journal(path, plan)
    run = Run(plan, _Ready(results), in_flight=EACH * 64, journal=journal, part=part)
    started = time.perf_counter()
    outcome = run.run()
    seconds = time.perf_counter() - started
    journal.close()
    assert outcome.finished == plan.pieces
    return seconds / plan.pieces


def _merge(plan: Plan, path: Path) -> float:
    started = time.perf_counter()
    assert not merged([path], plan).failures
    return (time.perf_counter() - started) / plan.pieces


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
    workers: int, each: int, times: list[float], costs: Costs, trouble: Trouble, seed: int
) -> float:
    """Seconds of parts with a driver each, which pods take in turn, and of the merge."""
    rng = random.Random(seed)
    pods, of_pod = max(1, workers // POD), min(POD, workers)
    slowness = _slowness(pods, trouble, rng)
    pieces = workers * each
    parts = pods * min(PARTS, each)
    ends = [(0.0, number) for number in range(pods)]
    heapq.heapify(ends)
    for part in range(parts):
        at, number = heapq.heappop(ends)
        count = pieces * (part + 1) // parts - pieces * part // parts
        seconds = max(statistics.fmean(times) * slowness[number] / of_pod, costs.part) * count
        # The slowest of the processes ends the part.
        seconds += rng.choice(times) * slowness[number] + trouble.start
        if rng.random() < seconds * of_pod / trouble.between:
            seconds += trouble.back + rng.choice(times)  # it goes on from its journal
        heapq.heappush(ends, (at + seconds, number))
    return max(end for end, _ in ends) + pieces * costs.merge


def _slowness(workers: int, trouble: Trouble, rng: random.Random) -> list[float]:
    slow = round(workers * trouble.share)
    found = [trouble.slow] * slow + [1.0] * (workers - slow)
    rng.shuffle(found)
    return found


def table(costs: Costs, trouble: Trouble, each: float, rate: float, large: int) -> float:
    """Print the share of linear scaling of each way; returns the best of the most workers.

    A worker has work for ``each`` seconds.
    """
    read = PIECE_BYTES / rate if rate else 0.0
    times = [max(seconds, read) for seconds in costs.pieces]
    larger = [seconds * large for seconds in times]
    best = statistics.fmean(times)
    small = min(round(each / best), SMALL)
    many = max(round(each / best / large), EACH)
    some = min(many, LARGE)
    print(f"{'workers':>8} {'one driver':>11} {f'pieces x{large}':>11} {'in parts':>9}")
    shares: tuple[float, ...] = ()
    for workers in WORKERS:
        shares = (
            small * best / one_driver(workers, small, times, costs.driver, trouble, 1),
            some * best * large / one_driver(workers, some, larger, costs.driver, trouble, 2),
            many * best * large / in_parts(workers, many, larger, costs, trouble, 3),
        )
        print(f"{workers:8} " + " ".join(f"{share:11.3f}" for share in shares), flush=True)
    print(f"a driver is busy from {best / costs.driver:,.0f} workers on with pieces of 64 MiB, and"
          f" from {best * large / costs.driver:,.0f} on with {large} times as much")  # fmt: skip
    return max(shares)


def main() -> int:
    """Measure, simulate and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pieces", type=int, default=24, help="that are scored")
    parser.add_argument("--kept", type=int, default=20_000, help="that are kept and merged")
    parser.add_argument("--each", type=float, default=86400.0, help="seconds of a worker's work")
    parser.add_argument("--large", type=int, default=16, help="times 64 MiB")
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
    with tempfile.TemporaryDirectory() as folder:
        costs = measured(Path(folder), given.pieces, given.kept)
    print(f"a piece of 64 MiB: {statistics.median(costs.pieces) * 1e3:.1f} ms on this machine"
          f" ({min(costs.pieces) * 1e3:.1f} to {max(costs.pieces) * 1e3:.1f})")  # fmt: skip
    print(f"of a driver, with its journal and merge: {costs.driver * 1e6:.0f} us a piece;"
          f" of a part's: {costs.part * 1e6:.0f} us; of the merge of journals:"
          f" {costs.merge * 1e6:.1f} us")  # fmt: skip
    least = 1.0
    for rate in given.rates:
        print(f"\nread at {rate / 1e6:.0f} MB/s a worker" if rate else "\nwarm files")
        found = table(costs, trouble, given.each, rate, given.large)
        print(f"{WORKERS[-1]} workers: {found:.3f} of linear (bar {BAR})")
        least = min(least, found)
    return 0 if least >= BAR else 1


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main())
