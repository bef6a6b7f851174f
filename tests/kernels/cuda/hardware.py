"""Plugin for pytest: the kernels' tests on a GPU, each at its own size.

    LOSSD_HARDWARE=1 python -m pytest -p tests.kernels.cuda.hardware tests/kernels

All calls of the door are for ``device="cuda"``, as in ``simulator``, whose list of tests this
follows. Without a GPU every test is skipped, for a reason that says what is missing. Under
NUMBA_ENABLE_CUDASIM=1 it is a rehearsal: the simulator's sizes and sample.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import numpy as np
import pytest

from benchmarks.cuda import figures
from kernels.devices import why_no_gpu
from tests.kernels.cuda import simulator

# Before any test is imported, since ``test_hardware`` asks for it.
os.environ["LOSSD_HARDWARE"] = "1"
REHEARSED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
# Left out on the simulator for their size, and run here.
LARGE = (
    "test_accumulate",
    "test_adversarial",
    "test_error_budget",
    "test_properties",
    "test_repeatable",
)
LARGE_TESTS = (
    "test_three_routes_agree_in_four_dimensions",
    "test_a_position_knows_nothing",
    "test_a_pixel_knows_nothing",
    "test_half_precision_is_computed",
)
# Files of this folder. ``simulated_resident`` pretends that host memory is the device's.
OWN = ("simulated_pieces", "test_hardware")
FILES = (*simulator.WHOLE, *simulator.SAMPLED, *LARGE, *OWN)
LEFT_OUT = tuple(name for name in simulator.LEFT_OUT if name not in LARGE_TESTS)
LARGEST_POISONED = 2**26  # bytes of a buffer
_EVERY = 50  # tests between two figures
_counts: Counter[str] = Counter()


def pytest_configure(config: pytest.Config) -> None:
    """Make the door's functions compute on the device, in poisoned memory."""
    if why_no_gpu() is not None:
        return
    simulator.redirect(simulator.LARGEST if REHEARSED else 2**63)
    if REHEARSED:
        simulator.quicken()
    else:
        _poison()


def pytest_collect_file(file_path: Any, parent: Any) -> Any:
    """Collect ``simulated_pieces``, whose name does not begin with test."""
    if file_path.name == f"{OWN[0]}.py":
        return pytest.Module.from_parent(parent, path=file_path)
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests to run; without a GPU mark them as skipped."""
    items[:] = [item for item in items if _is_run(item)]
    why = why_no_gpu()
    spread = config.pluginmanager.hasplugin("xdist")
    for item in items:
        if why is not None:
            item.add_marker(pytest.mark.skip(reason=why))
        if spread:
            item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    """Name of a group of tests that share kernels: one process compiles these once."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if "dtype" not in parameters:
        return item.path.stem
    return f"{parameters['dtype'].name}-{bool(parameters.get('soft'))}"


def _is_run(item: pytest.Item) -> bool:
    module = item.path.stem
    if module not in FILES or item.name.startswith(LEFT_OUT):
        return False
    return not REHEARSED or (module not in LARGE and simulator.is_run(item))


def _poison() -> None:
    """Fill buffers on the device with NaN, or an index out of range, when they are taken."""
    from kernels.cuda.device import memory
    from tests.kernels.conftest import POISONED, fill

    take = memory.Buffers.take

    def take_poisoned(self: Any, dtype: Any, count: int) -> Any:
        device, pinned = take(self, dtype, count)
        if 0 < pinned.nbytes <= LARGEST_POISONED:
            device.copy_to_device(fill(pinned))
        return device, pinned

    if POISONED:
        memory.Buffers.take = take_poisoned  # type: ignore[method-assign]


class _Reporter:
    """Reporter of each failure at once, in the process that the others report to."""

    def __init__(self, config: pytest.Config) -> None:
        self._terminal: Any = config.pluginmanager.get_plugin("terminalreporter")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        _counts[report.outcome] += 1
        if report.failed:
            text = report.longreprtext
            self._terminal.write_line(f"\nFAILED {report.nodeid}\n{text[-4000:]}")
            last = [line[2:] for line in text.splitlines() if line.startswith("E ")][:3]
            figures.put(f"failed: {report.nodeid}", " ".join(last)[:300])
        if report.failed or _counts.total() % _EVERY == 0:
            figures.put("tests", dict(_counts))

    def pytest_sessionfinish(self) -> None:
        figures.put("tests", dict(_counts))


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Register the reporter in the main process."""
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_Reporter(session.config), "lossd-hardware")


def sizes(real: Any, rehearsed: Any) -> Any:
    """``real``, or ``rehearsed`` on the simulator."""
    return rehearsed if REHEARSED else real


def on_host(array: Any) -> Any:
    """NumPy array of ``array``, which may be on the device."""
    return np.asarray(array.copy_to_host() if hasattr(array, "copy_to_host") else array)
