"""Statistics of the models of the Open Inference Protocol, from the blocks of their routes."""

from __future__ import annotations

from collections.abc import Iterator

from service.telemetry import layout
from service.telemetry.histograms import count
from service.telemetry.layout import DURATION, LAST, PHASE, ROWS, SPENT, SUM
from service.telemetry.snapshot import Snapshot
from service.telemetry.totals import Cells

_PREFIX, _SUFFIX = "/v2/models/", "/infer"
# Phases that the protocol has other names for; a request is whole with receiving and sending.
STAGES = {
    "queue": "queue",
    "compute_input": "decode",
    "compute_infer": "compute",
    "compute_output": "encode",
}


class Statistics:
    """Statistics of one model since the start; each pair is a count and a sum in nanoseconds."""

    def __init__(self, block: Cells) -> None:
        self.rows = int(block[ROWS])
        self.last = int(block[LAST])  # ms since 1970, of the last success
        self.success = count(block, PHASE["compute"]), int(block[SPENT])
        every = count(block, DURATION), int(block[DURATION + SUM])
        self.fail = every[0] - self.success[0], every[1] - self.success[1]
        self.stages = {
            name: (self.success[0], int(block[PHASE[phase] + SUM]))
            for name, phase in STAGES.items()
        }


def route(model: str) -> str:
    """Return the route of a model's inference."""
    return _PREFIX + model + _SUFFIX


def statistics(taken: Snapshot, model: str) -> Statistics:
    """Return the statistics of ``model``, which are zero where it was not asked."""
    return Statistics(taken.routes.get(route(model), layout.NOTHING))


def asked(taken: Snapshot) -> Iterator[tuple[str, Cells]]:
    """Models that were asked, each with the block of its route."""
    for name, block in taken.routes.items():
        model = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        if route(model) == name and "{" not in model:
            yield model, block
