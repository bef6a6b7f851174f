"""Standard metrics of processes, summed over all that belong to a server (Linux: from /proc)."""

from __future__ import annotations

from prometheus_client import ProcessCollector

from service.telemetry.snapshot import Snapshot

_SUMS = (
    "process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds",
)  # fmt: skip


def measured(taken: Snapshot) -> dict[str, float]:
    """Measure the processes of a snapshot, by the metric's name.

    CPU time is that of the rows, where processes that have ended count as well, and the owner's.
    """
    found = {process: _read(process) for process in {*taken.processes, taken.owner}}
    values = {
        name: sum(each[name] for each in found.values() if name in each)
        for name in _SUMS
        if any(name in each for each in found.values())
    }
    limits = [each["process_max_fds"] for each in found.values() if "process_max_fds" in each]
    if limits:
        values["process_max_fds"] = min(limits)
    values["process_cpu_seconds"] = taken.counters["cpu"] / 1e9
    if taken.owner not in taken.processes:
        values["process_cpu_seconds"] += found[taken.owner].get("process_cpu_seconds", 0.0)
    return values


def _read(process: int) -> dict[str, float]:
    """Measure one process: nothing where it has ended, or where there is no /proc."""
    collector = ProcessCollector(pid=lambda: process, registry=None)
    return {metric.name: metric.samples[0].value for metric in collector.collect()}
