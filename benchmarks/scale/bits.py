"""Bits of a corpus in every format, wherever its pieces are scored: those of one accumulator.

``python -m benchmarks.scale.bits FOLDER``: makes shards there (``benchmarks.scale.shards``), feeds
them to one ``LossAccumulator`` in order, and scores them in this process, in processes, on Dask
clusters of this machine, and by two servers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.scale.shards import SHARDS, written
from benchmarks.server import running
from kernels import LossAccumulator
from kernels.reduce import SCALE
from service.bulk import work
from service.bulk.executors.dask import Dask
from service.bulk.executors.here import Here
from service.bulk.executors.processes import Processes
from service.bulk.executors.servers import Servers
from service.bulk.formats import opened
from service.bulk.plan import Job, Plan, planned
from service.bulk.run import Run

CLASSES, PIECE_BYTES = 32_000, 1 << 24


def accumulated(paths: list[str], **options: Any) -> dict[str, Any]:
    """Sums of one accumulator with ``options`` that is fed all shards in order."""
    accumulator = LossAccumulator(**options)
    for path in paths:
        shard = opened(path, {})
        tensors = shard.read(0, shard.rows)
        accumulator.update(tensors["logits"], tensors["labels"])
        shard.close()
    return accumulator.sums()


@contextmanager
def _servers() -> Iterator[Executor]:
    with ExitStack() as stack:
        urls = [stack.enter_context(running()) for _ in range(2)]
        yield stack.enter_context(Servers(urls))


def places(plan: Plan) -> dict[str, Callable[[], Any]]:
    """Executors by name, which are made when they are called."""
    samples = plan.samples()
    return {
        "this process": Here,
        "1 process": lambda: Processes(1),
        "2 processes": lambda: Processes(2),
        "Dask, 1 worker": lambda: Dask(None, samples, 1),
        "Dask, 2 workers": lambda: Dask(None, samples, 2),
        "Dask, 4 workers": lambda: Dask(None, samples, 4),
        "2 servers": _servers,
    }


def main() -> int:
    """Score and compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of logits, in all")
    parser.add_argument("--shards", type=int, default=SHARDS)
    given = parser.parse_args()
    size = round(given.gigabytes * 1e9)
    paths = [str(path) for path, _ in written(
        given.folder, size, shards=given.shards, classes=CLASSES
    )]  # fmt: skip
    plan = planned(paths, Job({}, {}, 5), {}, PIECE_BYTES)
    assert not plan.failures, plan.failures
    print(f"{len(paths)} shards, {plan.pieces} pieces", flush=True)
    work.prepare(plan.samples())
    want = accumulated(paths)
    print(f"one accumulator: {want}", flush=True)
    first, wrong = b"", 0
    for name, place in places(plan).items():
        with place() as executor:
            began = time.perf_counter()
            outcome = Run(plan, executor, in_flight=8).run()
            seconds = time.perf_counter() - began
        loss, weight = outcome.total.sums()
        count = outcome.total.counts["count"]
        got = {"count": count, "weight_sum": weight / SCALE, "loss_sum": loss / SCALE}
        content = outcome.total.to_bytes()
        first = first or content
        same = got == want and content == first and not outcome.failures
        wrong += not same
        print(f"{name:16} {'the same bits' if same else 'OTHERS'}, {seconds:.1f} s", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
