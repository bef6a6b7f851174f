"""A plugin for pytest: the kernels' tests on Numba's CUDA simulator.

``test_simulated.py`` runs pytest with it in a process of its own, under NUMBA_ENABLE_CUDASIM=1,
which Numba has to see before it is imported. All calls of the door are for ``device="cuda"`` then,
and what a test compares them with is the same oracle.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import types
import zlib
from collections.abc import Callable
from typing import Any

import greenlet
import numpy as np
import pytest

import kernels

# Of the tests' own cases, every SAMPLE-th; LOSSD_SIMULATE=all runs them all, in some minutes.
SAMPLE = 1 if os.environ.get("LOSSD_SIMULATE") == "all" else 12
# Elements; each takes some 50 us. A test is skipped from its first call with more on: the CPU would
# have to compile kernels for them, which the suite itself does meanwhile.
LARGEST = 1600 if SAMPLE == 1 else 800
FUNCTIONS = (
    "cross_entropy",
    "nll_loss",
    "binary_cross_entropy",
    "log_softmax",
    "softmax",
    "kl_div",
)
# Files of which all cases are run.
WHOLE = (
    "test_worked_example",
    "test_torch_facts",
    "test_edges",
    "test_divergence_edges",
    "test_divergence_facts",
)
# Files of this folder, which are run whole as well.
OWN = ("simulated_options", "simulated_pieces", "simulated_resident")
SAMPLED = (
    "test_options",
    "test_outputs",
    "test_gradient",
    "test_labels",
    "test_layouts",
    "test_improvements",
    "test_range",
    "test_scratch",
    "test_sequences",
    "test_probabilities",
    "test_likeliest",
    "test_focal",
    "test_binary",
    "test_divergence",
    "test_divergence_sparse",
    "test_divergence_gradient",
)
# Tests of these files that are left out, by their names' beginnings, and why.
LEFT_OUT = {
    "test_scratch_is_poisoned": "it is of the CPU's scratch",
    "test_any_number_of_threads": "it is of the CPU's threads",
    "test_first_of_many_threads": "it is of the CPU's threads",
    "test_nothing_outside_an_array_is_touched": "the simulator's loads check each index themselves",
    "test_guard_pages_bite": "the simulator's loads check each index themselves",
    "test_three_routes_agree_in_four_dimensions": "786,432 logits would take a minute",
    "test_a_position_knows_nothing": "too large; simulated_pieces has smaller ones",
    "test_a_pixel_knows_nothing": "too large; simulated_pieces has smaller ones",
    "test_half_precision_is_computed": "131,072 classes would take a minute",
}
# Files that are left out whole, and why.
NOT_RUN = {
    "test_accumulate": "too large; simulated_pieces has smaller ones",
    "test_adversarial": "rows of 5,000 to 300,000 classes",
    "test_plain": "it is of the CPU's float32 registers",
    "test_plan_cache": "it is of plans that only the CPU keeps",
    "test_planned_loss": "it is of plans that only the CPU keeps",
    "test_error_budget": "rows of up to 32,769 classes",
    "test_divergence_properties": "hundreds of random calls a test",
    "test_divergence_refusals": "most of it is of errors that come before any device",
    "test_properties": "hundreds of random calls a test",
    "test_repeatable": "too large; simulated_pieces has smaller ones",
    "test_report": "it is of NumPy, and of kernels that it calls directly",
    "test_exact": "it is of NumPy alone",
    "test_explain": "explain names the device of each call",
    "test_formula": "it is of plain Python",
    "test_footprint": "it is of shapes alone",
    "test_numba_internals": "it is of Numba's names for the CPU",
    "test_mismatch": "it is of errors that come before any device",
    "test_ahead": "it is of the CPU's compiler",
    "test_out": "out is written on the CPU alone",
    "test_devices": "it starts processes of its own",
    "test_shards": "class_shard is computed on the CPU",
    "test_simd": "it is of the CPU's registers",
    "test_steps": "too large; simulated_pieces has smaller ones",
    "test_warm": "it is of compiling for the CPU",
    "test_cache": "it is of what is compiled for the CPU",
    "test_compiling": "it is of compiling in other processes",
    "test_compiled": "it is of what is compiled for the CPU",
    "test_divergence_error": "too large: 393,216 logits",
}
_calls = [0]
_given: set[tuple[str, str]] = set()  # functions, and options that they were given


def pytest_configure() -> None:
    """Makes the door's functions, and accumulators, compute on the simulated device."""
    redirect(LARGEST)
    quicken()


def redirect(largest: int) -> None:
    """Has the door's functions compute on the device what is of ``largest`` elements at most."""
    for name in FUNCTIONS:
        setattr(kernels, name, _on_device(getattr(kernels, name), largest))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps what is to be run."""
    items[:] = [item for item in items if is_run(item)]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"{_calls[0]} calls on the simulated device")
    for name in FUNCTIONS:
        options = set(inspect.signature(getattr(kernels, name)).parameters)
        never = options - {option for function, option in _given if function == name}
        terminalreporter.write_line(f"{name} was never given {sorted(never)}")


def is_run(item: pytest.Item) -> bool:
    """Membership of ``item`` in the sample."""
    if item.name.startswith(tuple(LEFT_OUT)):
        return False
    module = item.nodeid.partition(".py")[0].rpartition("/")[2]
    return module in (*WHOLE, *OWN) or zlib.crc32(item.nodeid.encode()) % SAMPLE == 0


def _on_device(function: Callable[..., Any], largest: int) -> Callable[..., Any]:
    @functools.wraps(function)
    def on_device(*arguments: Any, **options: Any) -> Any:
        logits: Any = arguments[0] if arguments else options.get("logits", 0)
        if options.get("device") == "cpu":
            return function(*arguments, **options)
        if np.size(logits) > largest:
            pytest.skip("larger than the simulator computes")
        _calls[0] += 1
        _given.update((function.__name__, name) for name in options)
        return function(*arguments, **{"device": "cuda"} | options)

    return on_device


def quicken() -> None:
    """Has the simulator compute a block on the calling thread, each of the block's as a greenlet.

    Of itself it starts a thread for each of them, polls these, and reads the whole stack to find
    the line that asks for shared memory.

    All threads of our kernels reach each barrier, or none does.
    """
    from numba.cuda.simulator import kernel, kernelapi

    def run(self: Any, block: Any, *arguments: Any) -> None:
        places = list(np.ndindex(*self._block_dim))
        numbers = [int(np.ravel_multi_index(at, self._block_dim, order="F")) for at in places]
        thread: Any = threading.current_thread()
        thread.blockIdx, thread._manager = kernel.Dim3(*block), self
        thread.syncthreads = greenlet.getcurrent().switch

        def once() -> None:
            with np.errstate(all="ignore"):  # on a GPU no operation warns
                self._f(*arguments)

        turns = [greenlet.greenlet(once) for _ in places]
        ended: set[bool] = set()
        while True not in ended:
            for turn, place, number in zip(turns, places, numbers, strict=True):
                thread.threadIdx, thread.thread_id = kernel.Dim3(*place), number
                turn.switch()
            ended = {turn.dead for turn in turns}
        assert False not in ended, "a barrier that some threads of the block never reach"

    def extract_stack(frame: Any) -> list[Any]:
        caller = frame.f_back
        return [(caller.f_code.co_filename, caller.f_lineno), None]

    kernel.BlockManager.run = run
    kernelapi.traceback = types.SimpleNamespace(extract_stack=extract_stack)
