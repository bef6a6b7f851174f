"""The event loop of the tests of connections: its time can be moved on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.protocol.transport import Loop


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Asyncio on a ``Loop``, for ``Wire.wait``."""
    return "asyncio", {"loop_factory": Loop}
