"""Small set of shards in every format, its plan, and what one accumulator makes of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from benchmarks.scale.bits import accumulated
from benchmarks.scale.shards import FORMATS, written
from service.bulk.journal import Journal
from service.bulk.plan import Job, Plan, planned
from service.bulk.run import Outcome, Run

CLASSES, ROWS = 53, 9


def make(folder: Path) -> list[str]:
    """Write a shard of each format to ``folder``; returns their paths."""
    size = len(FORMATS) * ROWS * CLASSES * 4
    return [str(path) for path, _ in written(folder, size, shards=len(FORMATS), classes=CLASSES)]


def plan_of(paths: list[str], rows: int = 2) -> Plan:
    """Plan of ``paths``, in pieces of ``rows``."""
    plan = planned(paths, Job({}, {}, 5), {"label_smoothing": "0.1"}, rows * CLASSES * 4)
    assert plan.failures == []
    return plan


def sums(paths: list[str]) -> dict[str, Any]:
    """Sums of one accumulator that is fed all shards in order."""
    return accumulated(paths, label_smoothing=0.1)


def run_on(
    executor: Executor, plan: Plan, in_flight: int = 4, journal: Path | None = None
) -> Outcome:
    """Outcome of a run of ``plan`` on ``executor``."""
    kept = None if journal is None else Journal(journal, plan)
    try:
        return Run(plan, executor, in_flight=in_flight, journal=kept).run()
    finally:
        if kept is not None:
            kept.close()


def sums_of(outcome: Outcome) -> dict[str, Any]:
    """Sums of ``outcome``, as those of an accumulator."""
    from kernels.reduce import SCALE

    loss, weight = outcome.total.sums()
    count = outcome.total.counts["count"]
    return {"count": count, "weight_sum": weight / SCALE, "loss_sum": loss / SCALE}


class Interrupted(Executor):
    """Executor that calls ``interrupt`` before the call number ``at`` of ``inner``."""

    def __init__(self, inner: Executor, at: int, interrupt: Callable[[], object]) -> None:
        self._inner, self._left, self._interrupt = inner, at, interrupt

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            self._interrupt()
        return self._inner.submit(fn, *args, **kwargs)
