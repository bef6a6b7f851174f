"""A server that allows shared memory, and what the clients of the protocol are given to send it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2 as httpx
import pytest

from tests.service.conftest import serving


@pytest.fixture(scope="session")
def server() -> Iterator[httpx.URL]:
    """The URL of ``lossd serve`` with shared memory."""
    with serving(LOSSD_ALLOW_SHARED_MEMORY="true") as url:
        yield url


@pytest.fixture(scope="session")
def address(server: httpx.URL) -> str:
    """Host and port, as tritonclient wants them."""
    return f"{server.host}:{server.port}"
