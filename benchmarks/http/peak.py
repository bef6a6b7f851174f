"""How much a server grows by while it serves one large request."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.http import requests
from benchmarks.http.client import Client, Piece, Request, post
from benchmarks.http.measure import TOLERANCE, forget_peak, memory
from benchmarks.kernel.bars import Bar
from benchmarks.kernel.cases import Case, data_for
from benchmarks.server import serving

_MB = 10**6
# 1 GB is 16 times the same 500 rows, so that the client need not hold it.
_PART = Case((500, 31250))
_PARTS = 16


def large_request(quick: bool = False) -> tuple[Request, float]:
    """One body of 1 GB (``quick``: an eighth), labels first, and its loss in float64."""
    data = data_for(_PART.smaller() if quick else _PART)
    labels = np.tile(data.labels, _PARTS)
    rows, classes = data.logits.shape
    inputs = [
        requests.entry("labels", labels) | {"parameters": {"binary_data_size": labels.nbytes}},
        {
            "name": "logits",
            "datatype": "FP32",
            "shape": [rows * _PARTS, classes],
            "parameters": {"binary_data_size": data.logits.nbytes * _PARTS},
        },
    ]
    header = requests.v2_header(inputs)
    logits = data.logits.reshape(-1).view("B").data
    pieces: list[Piece] = [header, labels.view("B").data, *[logits] * _PARTS]
    request = post(requests.V2, pieces, inference_header_content_length=str(len(header)))
    return request, float(data.per_element.mean())


def peak(quick: bool = False) -> Bar:
    """The most that a server which has just started holds above what it held idle. Linux only."""
    request, exact = large_request(quick)
    what = "peak RSS during a 1 GB request above idle, MB"
    with serving(LOSSD_LOG_LEVEL="warning") as server, Client(server) as client:
        try:
            forget_peak(server.process)
            before = memory(server.process)
            loss = requests.v2_loss(client.exchange(request))
            grown = (memory(server.process, "VmHWM") - before) / _MB
        except (OSError, RuntimeError) as failure:
            return Bar(what, 1100, 64, math.nan, str(failure)[:100], True, ".0f")
    agrees = abs(loss - exact) <= TOLERANCE * max(1.0, exact)
    return Bar(what, 1100, 64, grown if agrees else math.nan, f"loss {loss:.6f}", True, ".0f")
