"""Exemplars: the last sampled trace that was counted in each bucket of a route's duration."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from service.telemetry import layout
from service.telemetry.layout import BOUNDS, EXEMPLAR

_LOW = 2**64 - 1


class Exemplar(NamedTuple):
    """Trace and span, the duration in seconds, and when it was counted, in seconds since 1970."""

    trace: int
    span: int
    seconds: float
    at: float


def keep(cells: memoryview, route: int, trace: int, span: int, duration: int) -> None:
    """Keep the trace of a request of ``duration`` (ns), whose route's block is at ``route``."""
    at = _start(route) + EXEMPLAR * bisect_left(BOUNDS, duration)
    number = cells[at] + 1
    cells[at] = number  # odd: what follows is not whole
    cells[at + 1], cells[at + 2], cells[at + 3] = trace >> 64, trace & _LOW, span
    cells[at + 4], cells[at + 5] = duration, time.time_ns()
    cells[at] = number + 1


def of_route(row: memoryview, route: int) -> Iterator[tuple[int, Exemplar]]:
    """Exemplars of the route whose block is at ``route``, each after its bucket's number."""
    start = _start(route)
    for bucket in range(layout.SUM):
        cells = row[start + EXEMPLAR * bucket : start + EXEMPLAR * (bucket + 1)]
        number, high, low, span, duration, at = cells.tolist()
        if number and not number % 2 and cells[0] == number:
            yield bucket, Exemplar(high << 64 | low, span, duration / 1e9, at / 1e9)


def _start(route: int) -> int:
    return layout.EXEMPLARS + layout.OF_ROUTE * ((route - layout.ROUTES) // layout.BLOCK)
