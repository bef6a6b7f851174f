"""Costs of pieces on this machine: of a worker, of a driver, and of the merge of journals."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple

import numba

from benchmarks.scale.merge import partials
from benchmarks.scale.shards import written
from service.bulk import work
from service.bulk.cuts import LARGEST
from service.bulk.journal import Journal
from service.bulk.merging import merged
from service.bulk.plan import Job, Plan, Source, planned
from service.bulk.run import Run
from service.bulk.work import Result, score_piece

CLASSES, ROW_BYTES = 32_000, 32_000 * 4
# Pieces of a worker that are in flight, as of the command; parts for each pod, and times that a
# merge is timed.
EACH, PARTS, TIMES = 2, 64, 5


class Costs(NamedTuple):
    """Measured seconds of each piece: of a driver, of one that only keeps a journal, and of the
    merge of journals; and of the merge, of each journal.
    """

    driver: float
    part: float
    merge: float
    journal: float


class _Ready(Executor):
    """Executor that has every result already: what is left is the driver."""

    def __init__(self, results: list[bytes]) -> None:
        self._results, self._at = results, 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(self._results[self._at])
        self._at += 1
        return future


def scored(folder: Path, pieces: int) -> list[float]:
    """Seconds of pieces of ``LARGEST`` bytes, one by one."""
    paths = [str(path) for path, _ in written(
        folder, pieces * LARGEST, shards=2, classes=CLASSES, formats=("safetensors",)
    )]  # fmt: skip
    plan = planned(paths, Job({}, {}, 5), {}, LARGEST)
    work.prepare(plan.samples())
    numba.set_num_threads(1)  # a worker has a core
    seconds: list[float] = []
    for _ in range(2):  # the first time, files and kernels are read
        seconds = []
        for number in range(plan.pieces):
            started = time.perf_counter()
            score_piece(plan.task(number))
            taken = time.perf_counter() - started
            seconds.append(taken * LARGEST / plan.bytes_of(number))
    return seconds


def measured(folder: Path, piece_bytes: int, many: int) -> Costs:
    """Costs of ``many`` pieces of ``piece_bytes``, which are kept and merged."""
    positions = piece_bytes // ROW_BYTES
    source = Source(
        "shard", "", many * positions, (), ROW_BYTES, positions, (), "float32", None, 0, 0, 0
    )
    plan = Plan(Job({}, {}, 5), [source])
    parts = list(partials(many, positions))
    results = [Result(part, b"").to_bytes() for part in parts]
    driver = _driver(plan, results, folder / "driver.db", None)
    part = _driver(plan, results, folder / "part.db", range(plan.pieces))
    whole = _merge(plan, [folder / "part.db"])
    several = []
    for number in range(PARTS):
        several.append(folder / f"{number}.db")
        journal = Journal(several[-1], plan)
        first, stop = many * number // PARTS, many * (number + 1) // PARTS
        journal.save(list(enumerate(parts[first:stop], first)))
        journal.close()
    each = max(_merge(plan, several) - whole, 0.0) / PARTS
    return Costs(driver, part, whole / many, each)


def _driver(plan: Plan, results: list[bytes], path: Path, part: range | None) -> float:
    journal = Journal(path, plan)
    run = Run(plan, _Ready(results), in_flight=EACH * 64, journal=journal, part=part)
    started = time.perf_counter()
    outcome = run.run()
    seconds = time.perf_counter() - started
    journal.close()
    assert outcome.finished == plan.pieces
    return seconds / plan.pieces


def _merge(plan: Plan, paths: list[Path]) -> float:
    taken = []
    for _ in range(TIMES):
        started = time.perf_counter()
        assert not merged(paths, plan).failures
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)
