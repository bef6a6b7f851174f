"""Peak memory of a server that serves one large request."""

from __future__ import annotations

import math

from benchmarks.bars import Bar
from benchmarks.client import Client
from benchmarks.problems import TOLERANCE
from benchmarks.processes import forget_peak, memory
from benchmarks.requests import large_request, v2_loss
from benchmarks.server import serving
from kernels.dtypes import FLOAT32

_MB = 10**6
# Of max(1, loss).
_TOLERANCE = TOLERANCE[FLOAT32]


def peak(quick: bool = False) -> Bar:
    """Peak of a fresh server's memory above what it holds when idle, in MB. Linux only."""
    request, exact = large_request(quick)
    what = "peak RSS during a 1 GB request above idle, MB"
    with serving(LOSSD_LOG_LEVEL="warning") as server, Client(server) as client:
        try:
            forget_peak(server.process)
            before = memory(server.process)
            loss = v2_loss(client.exchange(request))
            grown = (memory(server.process, "VmHWM") - before) / _MB
        except (OSError, RuntimeError) as failure:
            return Bar(what, 1100, 64, math.nan, str(failure)[:100], True, ".0f")
    agrees = abs(loss - exact) <= _TOLERANCE * max(1.0, exact)
    return Bar(what, 1100, 64, grown if agrees else math.nan, f"loss {loss:.6f}", True, ".0f")
