"""Layout of one process's row of the table: which cell, of 64 bits each, counts what.

A row has single cells, a journal of requests that ended, and two copies of the totals that the
journal is added to (``service.telemetry.totals``). Times are in nanoseconds. The places are fixed
for one version of the code; ``VERSION`` tells two versions apart, since a process may be replaced
by one of a newer installation.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import TypeVar
from zlib import crc32

import numpy as np

from kernels import dtypes
from service.codecs import CODECS
from service.problems import TABLE
from service.telemetry.entry import LENGTH
from service.telemetry.names import BUCKETS, PHASES

T = TypeVar("T")

# Statuses that answers have, or may come to have; any other is counted as 500.
STATUSES = (
    200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409,
    411, 412, 413, 414, 415, 416, 422, 429, 431, 499, 500, 501, 503,
)  # fmt: skip
REASONS = tuple(row.name for row in TABLE.values())
OTHER = "other"  # format of bodies without tensors
FORMATS = (*(codec.name for codec in CODECS), "v2", OTHER)
WORK = tuple(product((dtype.name for dtype in dtypes.FLOATS), ("cpu", "cuda")))
QUEUES = ("compute", "transcode", "compile", "memory")
STATES = ("starting", "ready", "stopping")
GENERATIONS = ("0", "1", "2")

BOUNDS = tuple(round(bound * 1e9) for bound in BUCKETS)
# Cells of a histogram: its buckets, not cumulative, the last without a bound; then the sum.
SUM = len(BOUNDS) + 1
HISTOGRAM = SUM + 1

# Names of cells that are one number each.
GAUGES = (
    "requests_in_flight", "memory_leased_bytes", "memory_budget_bytes", "connections",
    "connections_limit", "kernel_threads",
    *(f"queue_length.{queue}" for queue in QUEUES), *(f"queue_limit.{queue}" for queue in QUEUES),
)  # fmt: skip
COUNTERS = (
    "cpu", "kernel_compilations", "log_lines_dropped",
    *(f"gc_{what}.{generation}"
      for what in ("collections", "collected", "uncollectable") for generation in GENERATIONS),
)  # fmt: skip


def _from(start: int, keys: Iterable[T]) -> dict[T, int]:
    return {key: start + index for index, key in enumerate(keys)}


# Single cells: the process that the row is of (0: none any more), its state, the bytes of its
# description, requests that ever were in the journal, and how often these were added to the totals.
PID, STATE, DESCRIBED, WRITTEN, ADDED = range(5)
GAUGE = _from(5, GAUGES)
COUNTER = _from(5 + len(GAUGES), COUNTERS)

# Entries of the journal, of ``entry.LENGTH`` cells each.
ENTRIES = 1024
JOURNAL = 5 + len(GAUGES) + len(COUNTERS)
TOTALS = JOURNAL + LENGTH * ENTRIES

# Totals: first, the number of requests in them. Then problems, logits and positions by dtype and
# device, bytes by format; then a block a route.
COUNTED = 0
REFUSED = _from(1, REASONS)
LOGITS = _from(1 + len(REASONS), WORK)
POSITIONS = _from(1 + len(REASONS) + len(WORK), WORK)
TO_POSITIONS = len(WORK)  # from a cell of logits
_BYTES = 1 + len(REASONS) + 2 * len(WORK)
RECEIVED = _from(_BYTES, FORMATS)
SENT = _from(_BYTES + len(FORMATS), FORMATS)
ROUTES = _BYTES + 2 * len(FORMATS)
# A route's block: requests by status, and their duration; of computed requests, phases, rows, the
# sum of their durations, and when the last one ended (ms since 1970).
STATUS = _from(0, STATUSES)
DURATION = len(STATUSES)
PHASE = {name: DURATION + HISTOGRAM * (1 + index) for index, name in enumerate(PHASES)}
ROWS = DURATION + HISTOGRAM * (1 + len(PHASES))
SPENT = ROWS + 1
LAST = SPENT + 1
BLOCK = LAST + 1
MOST_ROUTES = 96
NOTHING = np.zeros(BLOCK, np.int64)
SIZE = ROUTES + BLOCK * MOST_ROUTES

# Exemplars of a route, one a bucket of its duration: a number that is odd while it is written,
# trace (two cells), span, duration, and the time since 1970.
EXEMPLARS = TOTALS + 2 * SIZE
EXEMPLAR = 6
OF_ROUTE = EXEMPLAR * SUM
DESCRIPTION = EXEMPLARS + OF_ROUTE * MOST_ROUTES
DESCRIPTION_BYTES = 2**14
CELLS = DESCRIPTION + DESCRIPTION_BYTES // 8

VERSION = crc32(repr((STATUSES, REASONS, FORMATS, WORK, GAUGES, COUNTERS, LENGTH, SIZE)).encode())
