"""The statistics of V2: what is counted, and as what."""

from __future__ import annotations

import time

import numpy as np
import pytest

from kernels import steps
from service.routes.v2.statistics import Counters, Request


def durations(counters: Counters) -> dict[str, tuple[int, int]]:
    stats = counters.report("m", "1")["inference_stats"]
    return {kind: (found["count"], found["ns"]) for kind, found in stats.items()}


def test_nothing_has_happened_at_first() -> None:
    report = Counters().report("m", "1")
    assert (report["name"], report["version"]) == ("m", "1")
    assert report["last_inference"] == report["inference_count"] == report["execution_count"] == 0
    assert set(durations(Counters()).values()) == {(0, 0)}


def test_a_success_is_counted_by_its_phases() -> None:
    counters = Counters()
    before = time.time_ns() // 1_000_000
    for rows in (3, 4):
        request = Request()
        with request.phase("compute_input"):
            pass
        logits = np.zeros((rows, 5), np.float32)
        outputs = request.computed(steps.softmax(logits)).run()
        np.testing.assert_allclose(outputs["probs"], 0.2)
        with request.phase("compute_output"):
            time.sleep(0.001)
        request.batch = rows
        counters.count(request, success=True)
    found = durations(counters)
    for kind in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert found[kind][0] == 2
        assert found[kind][1] > 0
    assert found["compute_output"][1] >= 2_000_000
    assert found["success"][1] >= sum(
        found[kind][1] for kind in ("queue", "compute_input", "compute_infer", "compute_output")
    )
    assert found["fail"] == found["cache_hit"] == found["cache_miss"] == (0, 0)
    report = counters.report("m", "1")
    assert (report["inference_count"], report["execution_count"]) == (7, 2)
    assert report["last_inference"] >= before


def test_a_failure_is_counted_as_one_and_nothing_else() -> None:
    counters, request = Counters(), Request()
    with pytest.raises(ValueError, match=r"^$"), request.phase("compute_input"):
        raise ValueError
    assert request.spent["compute_input"] > 0
    counters.count(request, success=False)
    found = durations(counters)
    assert found.pop("fail")[0] == 1
    assert set(found.values()) == {(0, 0)}
    assert counters.report("m", "1")["inference_count"] == 0
