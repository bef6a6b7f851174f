"""Exposition: the snapshot as Prometheus' text format, or OpenMetrics with exemplars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from prometheus_client import exposition
from prometheus_client.core import Exemplar as ClientExemplar
from prometheus_client.core import Metric, Sample
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from service.telemetry import layout, processes, snapshot
from service.telemetry.aliases import ALIASES
from service.telemetry.histograms import histogram, samples
from service.telemetry.layout import DURATION, GENERATIONS, PHASE, QUEUES, STATES
from service.telemetry.memory import Table
from service.telemetry.names import METRICS
from service.telemetry.snapshot import Snapshot

# Values of labels, in the order of the metric's labels, and the number.
Values: TypeAlias = Iterable[tuple[tuple[str, ...], float]]

_SUFFIX = {"counter": "_total", "gauge": ""}


def text(table: Table, accept: str, aliases: Sequence[str] = ()) -> tuple[bytes, str]:
    """Return the metrics of ``table`` in the format that ``accept`` asks for, and its media type.

    ``aliases`` name the sets of ``service.telemetry.aliases`` to add.
    """
    _, media_type = exposition.choose_encoder(accept)
    collector = Metrics(table, aliases)
    # Every name is one of Prometheus' old ones, which every escaping leaves as it is; looking at
    # each character for that took 10 ms.
    if media_type.startswith("application/openmetrics-text"):
        written: bytes = openmetrics.generate_latest(  # type: ignore[no-untyped-call]
            collector, openmetrics.ALLOWUTF8
        )
        return written, media_type
    return exposition.generate_latest(collector, openmetrics.ALLOWUTF8), media_type


class Metrics(Collector):
    """Collector of the metrics of ``names.METRICS``, and of ``aliases``."""

    def __init__(self, table: Table, aliases: Sequence[str] = ()) -> None:
        self._table = table
        self._aliases = aliases

    def collect(self) -> Iterator[Metric]:
        taken = snapshot.taken(self._table)
        of_processes = processes.measured(taken)
        for name, kind, labels, about in METRICS:
            made = Metric(name, about, kind)
            if kind == "histogram":
                made.samples = list(_HISTOGRAMS[name](name, taken))
            elif name in of_processes:
                made.samples = [Sample(name + _SUFFIX[kind], {}, of_processes[name])]
            elif name in _VALUES:
                made.samples = [
                    Sample(name + _SUFFIX[kind], dict(zip(labels, values, strict=True)), number)
                    for values, number in _VALUES[name](taken)
                ]
            if made.samples:
                yield made
        for alias in self._aliases:
            yield from ALIASES[alias](taken)


def _requests(taken: Snapshot) -> Values:
    for route, block in taken.routes.items():
        for status, cell in layout.STATUS.items():
            if block[cell]:
                yield (route, str(status)), int(block[cell])


def _of(cells: Mapping[Any, int]) -> Callable[[Snapshot], Values]:
    """Return a reader of totals: those that are not zero, by the keys of ``cells``."""

    def read(taken: Snapshot) -> Values:
        for key, cell in cells.items():
            if taken.totals[cell]:
                yield key if isinstance(key, tuple) else (key,), int(taken.totals[cell])

    return read


def _refused(taken: Snapshot) -> Values:
    for reason, cell in layout.REFUSED.items():
        yield (str(reason),), int(taken.totals[cell])


def _gauge(name: str) -> Callable[[Snapshot], Values]:
    return lambda taken: [((), taken.gauges[name])]


def _gauges(name: str, keys: Sequence[str]) -> Callable[[Snapshot], Values]:
    return lambda taken: [((key,), taken.gauges[f"{name}.{key}"]) for key in keys]


def _counter(name: str) -> Callable[[Snapshot], Values]:
    return lambda taken: [((), taken.counters[name])]


def _collections(what: str) -> Callable[[Snapshot], Values]:
    return lambda taken: [((each,), taken.counters[f"gc_{what}.{each}"]) for each in GENERATIONS]


_VALUES: dict[str, Callable[[Snapshot], Values]] = {
    "lossd_requests": _requests,
    "lossd_refused": _refused,
    "lossd_logits": _of(layout.LOGITS),
    "lossd_positions": _of(layout.POSITIONS),
    "lossd_received_bytes": _of(layout.RECEIVED),
    "lossd_sent_bytes": _of(layout.SENT),
    "lossd_queue_length": _gauges("queue_length", QUEUES),
    "lossd_queue_limit": _gauges("queue_limit", [each for each in QUEUES if each != "memory"]),
    "lossd_kernel_compilations": _counter("kernel_compilations"),
    "lossd_log_lines_dropped": _counter("log_lines_dropped"),
    "lossd_workers": lambda taken: [((state,), taken.states[state]) for state in STATES],
    "lossd_workers_started": lambda taken: [((), taken.started)],
    "lossd_build_info": lambda taken: [(tuple(build.values()), 1) for build in taken.builds],
    "process_start_time_seconds": lambda taken: [((), taken.since)],
    "python_gc_collections": _collections("collections"),
    "python_gc_objects_collected": _collections("collected"),
    "python_gc_objects_uncollectable": _collections("uncollectable"),
    **{f"lossd_{name}": _gauge(name) for name in layout.GAUGES if "." not in name},
}


def _durations(name: str, taken: Snapshot) -> Iterator[Sample]:
    for route, block in taken.routes.items():
        exemplars = {
            bucket: ClientExemplar(
                {"trace_id": f"{found.trace:032x}", "span_id": f"{found.span:016x}"},
                found.seconds,
                found.at,
            )
            for bucket, found in taken.exemplars[route].items()
        }
        yield from samples(name, {"route": route}, *histogram(block, DURATION), exemplars)


def _phases(name: str, taken: Snapshot) -> Iterator[Sample]:
    block = np.sum([layout.NOTHING, *taken.routes.values()], axis=0)
    for phase, at in PHASE.items():
        yield from samples(name, {"phase": phase}, *histogram(block, at))


_HISTOGRAMS: dict[str, Callable[[str, Snapshot], Iterator[Sample]]] = {
    "lossd_request_duration_seconds": _durations,
    "lossd_phase_duration_seconds": _phases,
}
