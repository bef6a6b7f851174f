"""Histograms of a route's block: counts, sums, and samples for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from prometheus_client.core import Exemplar, Sample

from service.telemetry import layout
from service.telemetry.names import BUCKETS
from service.telemetry.totals import Cells

_BOUNDS = [*(f"{bound:g}" if bound < 1 else f"{bound:.1f}" for bound in BUCKETS), "+Inf"]


def histogram(block: Cells, at: int) -> tuple[list[int], float]:
    """Return the cumulative buckets, and the sum in seconds, of the histogram at ``at``."""
    return np.cumsum(block[at : at + layout.SUM]).tolist(), float(block[at + layout.SUM]) / 1e9


def count(block: Cells, at: int) -> int:
    """Return the number of values in the histogram at ``at``."""
    return int(block[at : at + layout.SUM].sum())


def samples(
    name: str,
    labels: dict[str, str],
    cumulative: Sequence[int],
    total: float,
    exemplars: Mapping[int, Exemplar] | None = None,
) -> Iterator[Sample]:
    """Samples of one histogram: its buckets, their count and the sum in seconds."""
    for index, (bound, number) in enumerate(zip(_BOUNDS, cumulative, strict=True)):
        exemplar = exemplars.get(index) if exemplars else None
        yield Sample(f"{name}_bucket", {**labels, "le": bound}, number, None, exemplar)
    yield Sample(f"{name}_count", labels, cumulative[-1])
    yield Sample(f"{name}_sum", labels, total)
