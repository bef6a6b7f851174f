"""Throughput of workers on warm files, against a plain parallel read of the same mapped files.

``python -m benchmarks.scale.throughput FOLDER``: safetensors of float32 with 32000 classes, which
are made there first. Both sides are processes that are up before the clock starts; rounds take
turns. Memory is the most that any worker was resident with.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.scale.mapped import read_plainly
from service.bulk import work
from service.bulk.cuts import shared
from service.bulk.executors.here import Here
from service.bulk.executors.processes import EACH, Processes
from service.bulk.plan import Job, Plan, planned
from service.bulk.run import Run
from service.codecs import Encoded
from service.codecs.safetensors import CODEC
from service.process import openmp

CLASSES, ROWS, SHARDS = 32000, 2096, 8
# Share of the plain read's speed, and bytes a worker may have besides its piece.
LEAST, BESIDES = 0.85, 300_000_000
WORKERS, ROUNDS = 2, 5


def made(folder: Path, shards: int, rows: int) -> list[str]:
    """Paths of the shards in ``folder``, made where they are not there."""
    paths = [folder / f"shard-{number}.safetensors" for number in range(shards)]
    generator = np.random.default_rng(0)
    for path in paths:
        if not path.exists():
            logits = generator.standard_normal((rows, CLASSES), np.float32)
            labels = generator.integers(0, CLASSES, rows)
            encoded = CODEC.encode({"labels": labels, "logits": logits})
            parts = [encoded.content, *encoded.more] if isinstance(encoded, Encoded) else [encoded]
            with path.open("wb") as file:
                for part in parts:
                    file.write(part)
    return [str(path) for path in paths]


def peak_bytes(process: int) -> int:
    """Most memory that a process was resident with, in bytes (Linux)."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def rates(plan: Plan, paths: list[str], rounds: int) -> dict[str, list[float]]:
    """Bytes a second of each way to read the files, of some ``rounds``; prints the memory."""
    total = sum(source.rows * source.row_bytes for source in plan.sources)
    work.prepare(plan.samples())
    plain = Processes(WORKERS, function=read_plainly)
    scoring = Processes(WORKERS)
    here = Here()

    def reads() -> None:
        for future in [plain.submit(read_plainly, path.encode()) for path in paths]:
            future.result()

    ways: dict[str, Callable[[], object]] = {
        "plain parallel read": reads,
        f"{WORKERS} processes of one thread": lambda: Run(
            plan, scoring, in_flight=EACH * WORKERS
        ).run(),
        "one process, all threads": lambda: Run(plan, here).run(),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first one warms everything up
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number:
                found[name].append(total / (time.perf_counter() - started))
    for process in scoring.processes:
        print(f"worker {process}: {peak_bytes(process) / 1e6:.0f} MB resident at most")
    plain.shutdown()
    scoring.shutdown()
    return found


def main() -> None:
    """Print the rates, and their share of the plain read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=SHARDS)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--piece-bytes", type=int, help="by default the command's")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    os.environ.setdefault(openmp.VARIABLE, openmp.ASLEEP)  # as the command does
    given.folder.mkdir(parents=True, exist_ok=True)
    paths = made(given.folder, given.shards, given.rows)
    size = given.piece_bytes or partial(shared, workers=WORKERS)
    plan = planned(paths, Job({}, {}, 5), {}, size)
    assert plan.size is not None
    print(f"{plan.pieces} pieces of {plan.size.bytes / 2**20:.0f} MiB at most")
    found = rates(plan, paths, given.rounds)
    plain = statistics.median(found["plain parallel read"])
    for name, values in found.items():
        rate = statistics.median(values)
        spread = f"{min(values) / 1e9:.2f} to {max(values) / 1e9:.2f}"
        print(f"{name:30} {rate / 1e9:6.2f} GB/s ({spread}), {rate / plain:.2f} of a plain read")


if __name__ == "__main__":
    main()
