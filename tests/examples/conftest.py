"""One server for every example."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.conftest import serving


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The URL of a server, without a slash at its end."""
    with serving() as started:
        yield str(started).rstrip("/")
