"""State that V2 keeps between requests: shared memory regions, and statistics of each model.

Statistics count a model's requests since the start, and the time of their phases.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kernels.steps import Work
from service.memory.regions import Regions
from service.routes.v2 import models
from service.settings import Settings

T = TypeVar("T")

# Protocol names: how requests ended, phases of those that succeeded, and a cache, which clients
# expect to read as zeros.
_ENDS = ("success", "fail")
_PHASES = ("queue", "compute_input", "compute_infer", "compute_output")
_NEVER = ("cache_hit", "cache_miss")


@dataclass(slots=True)
class Request:
    """Nanoseconds that one request has spent so far, by phase; ``batch`` is its number of rows."""

    started: int = field(default_factory=time.perf_counter_ns)
    spent: dict[str, int] = field(default_factory=dict)
    batch: int = 1

    def phase(self, name: str) -> Phase:
        """Context manager that counts its block's time as phase ``name``."""
        return Phase(self, name)

    def computed(self, work: Work) -> Work:
        """Return ``work`` with its time counted: as queue until its first step, then as compute."""
        return work._replace(steps=self._steps(work.steps, time.perf_counter_ns()))

    def _steps(self, steps: Generator[int, None, T], queued: int) -> Generator[int, None, T]:
        self.add("queue", queued)
        started = time.perf_counter_ns()
        result = yield from steps
        self.add("compute_infer", started)
        return result

    def add(self, phase: str, started: int) -> None:
        """Count the time since ``started``, in nanoseconds."""
        self.spent[phase] = self.spent.get(phase, 0) + time.perf_counter_ns() - started


class Phase:
    """Phase of a request, as a context manager: ``contextlib``'s takes 1 us more."""

    __slots__ = ("_name", "_request", "_started")

    def __init__(self, request: Request, name: str) -> None:
        self._request = request
        self._name = name

    def __enter__(self) -> None:
        self._started = time.perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        self._request.add(self._name, self._started)


class Counters:
    """Sums over all requests of one model, changed on the event loop only."""

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
        """Return the protocol's object for one model.

        It has no statistics by batch size, which a client could have grow without bound.
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


class State:
    """State of one application, from its start to its end."""

    def __init__(self, settings: Settings) -> None:
        self.regions = Regions(settings.allow_shared_memory, settings.shared_memory_prefix)
        self.counters = {name: Counters() for name in models.MODELS}
