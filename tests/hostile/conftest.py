"""A service with little memory, in a process of its own, for whoever wants to wear it out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.server import Server, serving

MEMORY_BYTES = 2**26


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Ready, with ``MEMORY_BYTES`` for its requests and half a second's patience."""
    with serving(
        LOSSD_MEMORY_BYTES=str(MEMORY_BYTES),
        LOSSD_MEMORY_WAIT_SECONDS="0.5",
        LOSSD_LOG_LEVEL="critical",
    ) as started:
        yield started
