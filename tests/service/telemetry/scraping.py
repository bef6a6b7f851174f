"""Values of a scrape, and a port to scrape."""

from __future__ import annotations

import socket

from prometheus_client.parser import text_string_to_metric_families


def value_in(text: str, name: str, **labels: str) -> float:
    """The sample of this name and these labels, 0 where there is none."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return 0.0


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
