"""Record of one request: its times, sizes and outcome, counted when it ends.

A whole request of 4 x 5 logits takes 57 us in the application: so times are taken where a stage
hands over to the next anyway, and all of them are written into the journal by one call.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import count
from time import perf_counter_ns
from typing import Any, TypeAlias

import numpy as np

from kernels import dtypes
from service.problems import PROBLEM
from service.telemetry import exemplars, layout, traceparent
from service.telemetry.counters import GATHERED, Counters
from service.telemetry.entry import (
    BEGAN,
    ENCODED,
    ENDED,
    FORMAT,
    LENGTH,
    REPLY,
    ROUTE,
    STATUS,
    WORK,
)
from service.telemetry.entry import PROBLEM as PROBLEM_CELL
from service.telemetry.names import CLIENT_GONE, PHASES
from service.telemetry.totals import phases
from service.telemetry.traceparent import Parent

Scope: TypeAlias = Mapping[str, Any]

# Key of a request's entry in its ASGI scope.
ENTRY = "lossd.entry"

_OK = 200
_FAILED = layout.STATUS[500]
_BLANK = [0] * LENGTH
_BLANK[FORMAT], _BLANK[REPLY] = layout.RECEIVED[layout.OTHER], layout.SENT[layout.OTHER]

TRACEPARENT = b"traceparent"
_ID, _TRACESTATE = b"x-request-id", b"tracestate"
_NOTHING: dict[bytes, bytes] = {}
# Visible ASCII, of a length that any identifier has; what else is sent is replaced.
_SANE = re.compile(rb"[!-~]{1,128}")
_new_ids = map((secrets.token_hex(6).encode() + b"-%x").__mod__, count(1))


class Record:
    """Record of a request, from its header on; ``entry`` is what the journal gets of it.

    ``request_id`` is of its header X-Request-ID, or a new one; ``parent`` of its header
    traceparent. ``trace`` and ``span`` are set where it is sampled here.
    """

    # Of the class until they change: a small request takes no longer than it must.
    entry: list[int]
    request_id: bytes
    counters: Counters
    scope: Any = None
    status = 0
    problem: str | None = None  # type of the problem that is answered
    parent: Parent | None = None
    trace_state = ""
    trace: int | None = None
    span: int | None = None

    def begin(
        self, counters: Counters, fields: Mapping[bytes, bytes] = _NOTHING, route: int = 0
    ) -> None:
        """Begin the record of a request whose header was read.

        ``fields`` are the last of each name, without those of ``traceparent`` where there are
        several; ``route`` is 0 if it is not known yet.
        """
        self.entry = entry = _BLANK.copy()
        entry[BEGAN] = perf_counter_ns()
        entry[ROUTE] = route
        self.counters = counters
        if _ID in fields and _SANE.fullmatch(fields[_ID]):
            self.request_id = fields[_ID]
        else:
            self.request_id = next(_new_ids)
        if TRACEPARENT in fields:
            self.parent = traceparent.parsed(fields[TRACEPARENT])
            self.trace_state = fields.get(_TRACESTATE, b"").decode("latin-1")

    def end(self, status: int = 0) -> None:
        """Count the request, once; ``status`` is that of an answer that no application gave."""
        entry, counters = self.entry, self.counters
        if entry[ENDED]:
            return
        entry[ENDED] = perf_counter_ns()
        status = status or self.status
        if status != _OK or not entry[ENCODED] or not entry[ROUTE]:
            status = self._end_other(status)
        entry[STATUS] = entry[ROUTE] + layout.STATUS.get(status, _FAILED)
        ended = counters.ended
        ended.append(entry)
        if len(ended) == GATHERED:
            counters.write()
        if observers or self.parent is not None:
            self._observed()

    def _end_other(self, status: int) -> int:
        """Complete the entry of a request that computed nothing, and return its status."""
        entry, scope = self.entry, self.scope
        self.status = status = status or CLIENT_GONE
        if scope is not None:
            self.problem = self.problem or scope.get(PROBLEM)
        if not entry[ROUTE]:
            entry[ROUTE] = self._routed()
        if status != _OK or not entry[ENCODED]:
            entry[WORK] = 0
        if self.problem is not None:
            entry[REPLY] = layout.SENT[layout.OTHER]
            entry[PROBLEM_CELL] = layout.REFUSED[self.problem]
        return status

    def _routed(self) -> int:
        """Find the route that FastAPI's router chose for a path with parameters."""
        found = self.scope.get("route") if self.scope else None
        return self.counters.routes.get(getattr(found, "path", ""), self.counters.unknown)

    def _observed(self) -> None:
        """Tell the observers, and keep the trace as an exemplar if it is sampled."""
        for observe in observers:
            observe(self)
        entry, parent = self.entry, self.parent
        trace, span = self.trace, self.span
        if trace is None and parent is not None and parent.sampled:
            trace, span = parent.trace, parent.span
        if trace is not None and span is not None:
            duration = entry[ENDED] - entry[BEGAN]
            exemplars.keep(self.counters.cells, entry[ROUTE], trace, span, duration)

    def phases(self) -> dict[str, int]:
        """Nanoseconds of each phase, by name, of a request that was computed; else none."""
        if not self.entry[WORK]:
            return {}
        return dict(zip(PHASES, phases(self.entry), strict=True))


def of(scope: Scope) -> list[int]:
    """Return the entry of a request: a new one, which is not counted, on another server."""
    return scope.get(ENTRY) or _BLANK.copy()


# The same few shapes come again and again: 0.1 us in place of 0.5.
@lru_cache(1024)
def sizes(
    shape: tuple[int, ...], dtype: np.dtype[Any], class_axis: int | None, device: str
) -> tuple[int, int, int, int]:
    """Return what ``entry.WORK`` to ``entry.ROWS`` are for logits of ``shape``."""
    known = dtypes.of(np.empty(0, dtype))
    size = math.prod(shape)
    axis = min(1, len(shape) - 1) if class_axis is None else class_axis
    # A scalar has no classes, and not every operation has them on an axis.
    classes = shape[axis] if -len(shape) <= axis < len(shape) else 1
    positions = size // classes if classes else 0
    rows = shape[0] if len(shape) > 1 else 1
    return layout.LOGITS[known.name if known else "float32", device], size, positions, rows


# Called with each request that has ended: traces, and the access log.
observers: list[Callable[[Record], None]] = []
