"""Fixtures of every test: a dtype, a layout; and one Hypothesis profile."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator

import hypothesis
import pytest

from kernels import dtypes
from tests import ahead, zoo

# A compilation may fall into any example, so no deadline; CI must not fail on what it did not run
# yesterday, so there the examples are always the same.
hypothesis.settings.register_profile(
    "lossd", deadline=None, derandomize="CI" in os.environ, print_blob=True, database=None
)
hypothesis.settings.load_profile("lossd")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Compiles what all tests need, where all are run by several workers, before these start."""
    config = session.config
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    chosen = config.option.keyword or config.option.markexpr
    if everything and not chosen and config.getoption("numprocesses", None):
        ahead.compile_all()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collects tests without the collector of garbage, which takes a sixth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with what takes long, so that no worker waits for it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Keeps what was imported out of collections, which takes each of them half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of all async tests: anyio's plugin runs them."""
    return "asyncio"


@pytest.fixture(params=dtypes.FLOATS, ids=lambda dtype: dtype.name)
def dtype(request: pytest.FixtureRequest) -> dtypes.DType:
    """Each type that logits may have."""
    row: dtypes.DType = request.param
    return row


@pytest.fixture(params=list(zoo.LAYOUTS.values()), ids=list(zoo.LAYOUTS))
def layout(request: pytest.FixtureRequest) -> Callable[[zoo.Array], zoo.Array]:
    """Each way that an array may lie in memory: a function that makes it lie so."""
    make: Callable[[zoo.Array], zoo.Array] = request.param
    return make
