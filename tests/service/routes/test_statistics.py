"""The statistics of V2: what is counted, and as what."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from service.routes.v2.statistics import report
from service.telemetry import entry, layout, snapshot
from service.telemetry.counters import Counters
from service.telemetry.entry import BEGAN
from service.telemetry.memory import Table
from service.telemetry.record import Record, sizes

ROUTE = "/v2/models/softmax/infer"


def counting() -> Counters:
    table = Table()
    counters = Counters(table, table.assign())
    counters.describe({ROUTE: ROUTE}, {})
    return counters


def ended(counters: Counters, rows: int, status: int) -> Record:
    """A request that took some time in each phase, and has ended."""
    record = Record()
    record.begin(counters, {}, counters.routes[ROUTE])
    times = record.entry
    for index in (
        entry.LEASED, entry.RECEIVED, entry.DECODED, entry.COMPUTING,
        entry.COMPUTED, entry.ENCODED,
    ):  # fmt: skip
        times[index] = time.perf_counter_ns()
    times[entry.DECODING] = times[entry.RECEIVED]
    times[entry.WORK : BEGAN] = sizes((rows, 5), np.dtype("f4"), None, "cpu")
    record.end(status)
    return record


def reported(counters: Counters) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    counters.write()
    found = report(snapshot.taken(counters.table), "softmax", "1")
    stats = found["inference_stats"]
    return found, {kind: (each["count"], each["ns"]) for kind, each in stats.items()}


def test_nothing_has_happened_at_first() -> None:
    found, durations = reported(counting())
    assert (found["name"], found["version"]) == ("softmax", "1")
    assert found["last_inference"] == found["inference_count"] == found["execution_count"] == 0
    assert set(durations.values()) == {(0, 0)}


def test_a_success_is_counted_by_its_phases() -> None:
    counters = counting()
    before = time.time_ns() // 1_000_000
    records = [ended(counters, rows, 200) for rows in (3, 4)]
    found, durations = reported(counters)
    spent = {name: sum(record.phases()[name] for record in records) for name in layout.PHASE}
    for kind, phase in (
        ("queue", "queue"), ("compute_input", "decode"), ("compute_infer", "compute"),
        ("compute_output", "encode"),
    ):  # fmt: skip
        assert durations[kind] == (2, spent[phase])
    assert durations["success"] == (2, sum(spent.values()))
    assert durations["fail"] == durations["cache_hit"] == durations["cache_miss"] == (0, 0)
    assert (found["inference_count"], found["execution_count"]) == (7, 2)
    assert before - 1 <= found["last_inference"] <= time.time_ns() // 1_000_000


def test_a_failure_is_counted_as_one_and_nothing_else() -> None:
    counters = counting()
    ended(counters, 3, 422)
    found, durations = reported(counters)
    count, nanoseconds = durations.pop("fail")
    assert count == 1
    assert nanoseconds > 0
    assert set(durations.values()) == {(0, 0)}
    assert found["inference_count"] == 0
