"""Aliases: the names that Triton and KServe give to metrics, for dashboards written for them.

Only models of the Open Inference Protocol have them, as only those have a name there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric, Sample

from service.telemetry.histograms import histogram, samples
from service.telemetry.layout import PHASE
from service.telemetry.models import STAGES, Statistics, asked
from service.telemetry.snapshot import Snapshot

_VERSION = "1"

# https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/metrics.html
# Name after nv_inference_, help, value.
_TRITON: tuple[tuple[str, str, Callable[[Statistics], int]], ...] = (
    ("request_success", "Successful requests", lambda found: found.success[0]),
    ("request_failure", "Failed requests", lambda found: found.fail[0]),
    ("count", "Rows that were computed", lambda found: found.rows),
    ("exec_count", "Executions", lambda found: found.success[0]),
    ("request_duration_us", "Time of requests", lambda found: found.success[1] // 1000),
)

# KServe's names of a model server's stages, by the phase that each is.
_KSERVE = {
    "request_preprocess_seconds": "decode",
    "request_predict_seconds": "compute",
    "request_postprocess_seconds": "encode",
}


def _triton(taken: Snapshot) -> Iterator[Metric]:
    """Metrics of Triton's names: microseconds, and counters without ``_total``.

    Prometheus' libraries write no such counter, so their type is not said.
    """
    found = {model: Statistics(block) for model, block in asked(taken)}
    for name, about, value in _TRITON:
        values = {model: value(each) for model, each in found.items()}
        yield _untyped(f"nv_inference_{name}", about, values)
    for stage, phase in STAGES.items():
        values = {model: each.stages[stage][1] // 1000 for model, each in found.items()}
        yield _untyped(f"nv_inference_{stage}_duration_us", f"Time of phase {phase}", values)


def _untyped(name: str, about: str, values: dict[str, int]) -> Metric:
    made = Metric(name, about, "unknown")
    reason = {"reason": "OTHER"} if name.endswith("_failure") else {}
    made.samples = [
        Sample(name, {"model": model, "version": _VERSION, **reason}, value)
        for model, value in values.items()
    ]
    return made


def _kserve(taken: Snapshot) -> Iterator[Metric]:
    for name, phase in _KSERVE.items():
        made = Metric(name, f"Time of phase {phase}", "histogram")
        for model, block in asked(taken):
            made.samples += samples(name, {"model_name": model}, *histogram(block, PHASE[phase]))
        yield made


ALIASES = {"triton": _triton, "kserve": _kserve}
