"""What a model has been asked since the start, and where the time went: the V2 statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from kernels.steps import Work

P = ParamSpec("P")
T = TypeVar("T")

# As the protocol names them: how requests ended, then what those that succeeded spent their time
# on. Nothing is cached here: its clients expect to read that as zeros.
_ENDS = ("success", "fail")
_PHASES = ("queue", "compute_input", "compute_infer", "compute_output")
_NEVER = ("cache_hit", "cache_miss")


@dataclass(slots=True)
class Request:
    """The nanoseconds that one request has spent so far; ``batch`` is how many rows it has."""

    started: int = field(default_factory=time.perf_counter_ns)
    spent: dict[str, int] = field(default_factory=dict)
    batch: int = 1

    def timed(self, phase: str, function: Callable[P, T]) -> Callable[P, T]:
        """``function``, its time counted as ``phase``."""

        def timing(*arguments: P.args, **named: P.kwargs) -> T:
            started = time.perf_counter_ns()
            try:
                return function(*arguments, **named)
            finally:
                self._add(phase, started)

        return timing

    def computed(self, work: Work) -> Work:
        """``work``, its time counted as waiting until its first step, and computing from there."""
        return work._replace(steps=self._steps(work.steps, time.perf_counter_ns()))

    def _steps(self, steps: Generator[int, None, T], queued: int) -> Generator[int, None, T]:
        self._add("queue", queued)
        started = time.perf_counter_ns()
        result = yield from steps
        self._add("compute_infer", started)
        return result

    def _add(self, phase: str, started: int) -> None:
        self.spent[phase] = self.spent.get(phase, 0) + time.perf_counter_ns() - started


class Counters:
    """The sums over all requests of one model. Counted on the event loop, so never two at once."""

    def __init__(self) -> None:
        self._sums = {name: [0, 0] for name in _ENDS + _PHASES + _NEVER}
        self._rows = 0
        self._last = 0

    def count(self, request: Request, *, success: bool) -> None:
        """Add a request that has ended."""
        elapsed = time.perf_counter_ns() - request.started
        spent = request.spent if success else {}
        for name, nanoseconds in (("success" if success else "fail", elapsed), *spent.items()):
            self._sums[name][0] += 1
            self._sums[name][1] += nanoseconds
        if success:
            self._rows += request.batch
            self._last = time.time_ns() // 1_000_000

    def report(self, name: str, version: str) -> dict[str, Any]:
        """The protocol's object for one model.

        Without statistics by batch size: whoever sends every size would have us keep them all.
        """
        return {
            "name": name,
            "version": version,
            "last_inference": self._last,
            "inference_count": self._rows,
            "execution_count": self._sums["success"][0],
            "inference_stats": {
                kind: {"count": count, "ns": nanoseconds}
                for kind, (count, nanoseconds) in self._sums.items()
            },
            "response_stats": {},
            "batch_stats": [],
            "memory_usage": [],
        }
