"""A client that behaves: latencies and refusals of its small requests."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from benchmarks import requests
from benchmarks.client import Client, get
from benchmarks.problems import Case, data_for
from benchmarks.server import Server

# One request in so many uses a fresh connection, the others share one.
_FRESH = 10
_PAUSE_SECONDS = 0.001


@dataclass
class Seen:
    """Latencies, and the number of requests with no answer or a status other than 200."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0

    def quantile(self, share: float) -> float:
        """Latency in seconds at the quantile ``share``, 0 to 1."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


def normal_requests(server: Server, count: int) -> Seen:
    """Send ``count`` requests of 4 x 5 logits, one after the other."""
    data = data_for(Case((4, 5)))
    request = requests.v2({"labels": data.labels, "logits": data.logits}).joined
    seen = Seen()
    with Client(server) as kept:
        for number in range(count):
            time.sleep(_PAUSE_SECONDS)
            started = time.perf_counter()
            try:
                if number % _FRESH:
                    answer = kept.exchange(request)
                else:
                    with Client(server) as fresh:
                        answer = fresh.exchange(request)
            except OSError:
                seen.refused += 1
                continue
            seen.seconds.append(time.perf_counter() - started)
            seen.refused += answer.status != 200
    return seen


def leased_bytes(server: Server) -> int:
    """Bytes that the requests of ``server`` hold, as its /readyz says."""
    with Client(server) as client:
        return int(json.loads(client.exchange(get("/readyz")).body)["leased_bytes"])
