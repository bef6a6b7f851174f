"""Record of one request: its times, sizes and outcome, counted when it ends.

A whole request of 4 x 5 logits takes 57 us in the application: so times are taken where a stage
hands over to the next anyway, and all of them are written into the journal by one call.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from struct import Struct
from time import perf_counter_ns
from typing import Any, TypeAlias

import numpy as np

from kernels import dtypes
from service.problems import RECORD
from service.telemetry import entry, exemplars, layout, traceparent
from service.telemetry.counters import Counters, here
from service.telemetry.entry import (
    BEGAN,
    ENCODED,
    ENDED,
    FORMAT,
    LENGTH,
    PROBLEM,
    REPLY,
    ROUTE,
    STATUS,
    WORK,
)
from service.telemetry.layout import WRITTEN
from service.telemetry.names import CLIENT_GONE, PHASES
from service.telemetry.totals import add_journal, phases
from service.telemetry.traceparent import Parent

Scope: TypeAlias = Mapping[str, Any]

_OK = 200
_FAILED = layout.STATUS[500]
_ENTRY = Struct(f"={LENGTH}q")
_BYTES = _ENTRY.size
_JOURNAL = 8 * layout.JOURNAL
_ENTRIES = layout.ENTRIES
_BLANK = [0] * LENGTH
_BLANK[FORMAT], _BLANK[REPLY] = layout.RECEIVED[layout.OTHER], layout.SENT[layout.OTHER]

_ID, _TRACEPARENT, _TRACESTATE = b"x-request-id", b"traceparent", b"tracestate"
# Visible ASCII, of a length that any identifier has; what else is sent is replaced.
_SANE = re.compile(rb"[!-~]{1,128}")
_PREFIX = secrets.token_hex(6).encode() + b"-"
_numbers = count(1)


class Record:
    """Record of a request whose header has been read; ``entry`` is its entry of the journal.

    ``id`` is of its header X-Request-ID, or a new one; ``parent`` of its header traceparent.
    """

    # Of the class until they change: a small request takes no longer than it must.
    status = 0
    problem: str | None = None  # type of the problem that is answered
    parent: Parent | None = None
    trace_state = ""
    trace: int | None = None
    span: int | None = None

    def __init__(
        self, counters: Counters, headers: Sequence[tuple[bytes, bytes]] = (), route: int = 0
    ) -> None:
        self.entry = begun = _BLANK.copy()
        begun[BEGAN] = perf_counter_ns()
        begun[ROUTE] = route
        self.counters = counters
        fields = dict(headers)
        if _ID in fields and _SANE.fullmatch(fields[_ID]):
            self.id = fields[_ID]
        else:
            self.id = b"%b%x" % (_PREFIX, next(_numbers))
        if _TRACEPARENT in fields and [name for name, _ in headers].count(_TRACEPARENT) == 1:
            self.parent = traceparent.parsed(fields[_TRACEPARENT])
            self.trace_state = fields.get(_TRACESTATE, b"").decode("latin-1")

    def computes(self, logits: np.ndarray[Any, Any], class_axis: int | None, device: str) -> None:
        """Note what is computed: ``logits``, whose classes are along ``class_axis``."""
        shape, size = logits.shape, logits.size
        dtype = dtypes.of(logits)
        classes = shape[min(1, len(shape) - 1) if class_axis is None else class_axis]
        positions = size // classes if classes else 0
        rows = shape[0] if len(shape) > 1 else 1
        self.entry[entry.LOGITS : BEGAN] = size, positions, rows
        if dtype is not None:
            self.entry[WORK] = layout.LOGITS[dtype.name, device]

    def end(self, scope: Scope | None = None, status: int = 0) -> None:
        """Count the request, once; ``status`` is that of an answer that no application gave."""
        ended = self.entry
        if ended[ENDED]:
            return
        ended[ENDED] = perf_counter_ns()
        self.status = status = status or self.status or CLIENT_GONE
        route = ended[ROUTE]
        if not route:
            ended[ROUTE] = route = self._routed(scope)
        ended[STATUS] = route + layout.STATUS.get(status, _FAILED)
        if status != _OK or not ended[ENCODED]:
            ended[WORK] = 0
            if self.problem is not None:
                ended[REPLY] = layout.SENT[layout.OTHER]
                ended[PROBLEM] = layout.REFUSED[self.problem]
        counters = self.counters
        cells = counters.cells
        written = cells[WRITTEN]
        _ENTRY.pack_into(counters.bytes, _JOURNAL + _BYTES * (written % _ENTRIES), *ended)
        # From here on it is counted.
        cells[WRITTEN] = written = written + 1
        if not written % _ENTRIES:
            add_journal(cells)
        for observe in observers:
            observe(self, scope)
        if self.parent is not None or self.trace is not None:
            self._exemplify(route, ended[ENDED] - ended[BEGAN])

    def _exemplify(self, route: int, duration: int) -> None:
        """Keep the trace as an exemplar, if it is sampled here or by the caller."""
        if self.trace is not None and self.span is not None:
            exemplars.keep(self.counters.cells, route, self.trace, self.span, duration)
        elif self.parent is not None and self.parent.sampled:
            exemplars.keep(
                self.counters.cells, route, self.parent.trace, self.parent.span, duration
            )

    def phases(self) -> dict[str, int]:
        """Nanoseconds of each phase, by name, of a request that was computed; else none."""
        if not self.entry[WORK]:
            return {}
        return dict(zip(PHASES, map(int, phases(self.entry)), strict=True))

    def _routed(self, scope: Scope | None) -> int:
        """Find the route that FastAPI's router chose for a path with parameters."""
        found = getattr(scope.get("route"), "path", None) if scope else None
        return self.counters.routes.get(found or "", self.counters.unknown)


def of(scope: Scope) -> Record:
    """Return the record of a request: a new one, which is not counted, on another server."""
    found: Record = scope.get(RECORD) or Record(here())
    return found


# Called with each request that has ended, and its scope: the access log, and traces.
observers: list[Callable[[Record, Scope | None], None]] = []
