"""State that V2 keeps between requests, and the protocol's statistics of a model.

The numbers are those of ``/metrics``: of all workers since the start.
"""

from __future__ import annotations

from typing import Any

from service.memory.regions import Regions
from service.settings import Settings
from service.telemetry.models import statistics
from service.telemetry.snapshot import Snapshot

# Of a cache, which clients expect to read.
_NEVER = dict.fromkeys(("cache_hit", "cache_miss"), (0, 0))


class State:
    """State of one application, from its start to its end."""

    def __init__(self, settings: Settings) -> None:
        self.regions = Regions(settings.allow_shared_memory, settings.shared_memory_prefix)


def report(taken: Snapshot, name: str, version: str) -> dict[str, Any]:
    """Return the protocol's object for the model ``name``.

    It has no statistics by batch size, which a client could have grow without bound.
    """
    found = statistics(taken, name)
    sums = {"success": found.success, "fail": found.fail, **found.stages, **_NEVER}
    return {
        "name": name,
        "version": version,
        "last_inference": found.last,
        "inference_count": found.rows,
        "execution_count": found.success[0],
        "inference_stats": {
            kind: {"count": count, "ns": nanoseconds} for kind, (count, nanoseconds) in sums.items()
        },
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    }
