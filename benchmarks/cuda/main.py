"""``python -m benchmarks cuda``: the kernels on a GPU, beside PyTorch's and Liger's.

Logits and labels are on the device; a call is timed by events on its stream, and ends with the
loss's block sums on the device. GB/s are those of the logits, and the share is that of what a copy
from device to device reads and writes a second, measured in the same run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.problems import CASES, TOLERANCE, Data, data_for
from kernels.devices import why_no_gpu
from kernels.dtypes import BFLOAT16

ROUNDS = 20
_COPIED = 2**28  # bytes: several times the largest L2 cache
# Prepares a contestant: it gives a call, and one that says how far the call's result is off.
Entry = tuple[Callable[[], Any], Callable[[], float]]


def main(rounds: int = ROUNDS, quick: bool = False) -> int:
    """0 where all contestants that could run agree with float64; exits where there is no GPU."""
    why = why_no_gpu()
    if why is not None:
        raise SystemExit(f"no GPU to measure on: {why}")
    try:
        torch = import_module("torch")
    except ImportError:
        raise SystemExit("the benchmark needs PyTorch for CUDA: pip install torch") from None
    bandwidth = _copied_per_second(torch, rounds)
    table = Table(title=f"{torch.cuda.get_device_name()}: copies at {bandwidth / 1e9:.0f} GB/s")
    for name in ("case", "contestant", "us", "GB/s of logits", "of copy", "error"):
        table.add_column(name)
    agree = True
    for case in CASES:
        data = data_for(case.smaller() if quick else case)
        for name, enter in _CONTESTANTS.items():
            agree &= _row(table, name, enter, data, torch, rounds, bandwidth)
    Console(width=110).print(table)
    return 0 if agree else 1


def _row(
    table: Table, name: str, enter: Any, data: Data, torch: Any, rounds: int, bandwidth: float
) -> bool:
    """Adds a contestant's row; whether it was right, or could not run."""
    case = data.case
    try:
        call, error = enter(data, torch)
        call()
        off = error()
    except Exception as problem:  # a peer may refuse in any way
        table.add_row(case.name, name, "-", "-", "-", f"{type(problem).__name__}: {problem}"[:60])
        return name != "lossd"
    seconds = _seconds(torch, call, rounds)
    rate = data.logits.nbytes / seconds
    read = f"{rate / 1e9:.0f}", f"{rate / bandwidth:.0%}"
    table.add_row(case.name, name, f"{seconds * 1e6:.1f}", *read, f"{off:.1e}")
    return bool(off <= TOLERANCE[case.dtype])


def _seconds(torch: Any, call: Callable[[], Any], rounds: int) -> float:
    """The median of ``rounds`` calls, by the device's clock."""
    times: list[float] = []
    for _ in range(rounds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return statistics.median(times)


def _copied_per_second(torch: Any, rounds: int) -> float:
    source = torch.zeros(_COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds: float = _seconds(torch, lambda: target.copy_(source), rounds)
    return 2 * _COPIED / seconds


def _on_device(data: Data, torch: Any) -> tuple[Any, Any]:
    """Logits and labels as PyTorch has them on the GPU."""
    bits = data.logits.view(np.int16) if data.case.dtype is BFLOAT16 else data.logits
    logits = torch.from_numpy(bits).cuda()
    if data.case.dtype is BFLOAT16:
        logits = logits.view(torch.bfloat16)
    return logits, torch.from_numpy(data.labels).cuda()


def _ours(data: Data, torch: Any) -> Entry:
    from numba import cuda

    from benchmarks.cuda.resident import Resident

    logits, labels = _on_device(data, torch)
    dtype = data.case.dtype
    words = logits.view(torch.int16) if dtype.size == 2 else logits
    array = cuda.as_cuda_array(words.reshape(-1)).view(dtype.load)
    there = cuda.as_cuda_array(labels.reshape(-1))
    gradient = data.case.wants == "gradient"
    resident = Resident(data.logits.shape, dtype, array, there, gradient)
    stream = cuda.external_stream(torch.cuda.current_stream().cuda_stream)

    def error() -> float:
        torch.cuda.synchronize()
        off = data.loss_error(resident.loss())
        if gradient:
            slopes = resident.gradient().reshape(data.logits.shape)
            off = max(off, data.gradient_error(slopes))
        return off

    return lambda: resident.queue(stream), error


def _peer(function: Callable[[Any], Any]) -> Callable[[Data, Any], Entry]:
    """A contestant of PyTorch's kind; ``function(torch)`` gives its loss of logits and labels."""

    def enter(data: Data, torch: Any) -> Entry:
        loss_of = function(torch)
        logits, labels = _on_device(data, torch)
        wants = data.case.wants == "gradient"
        logits.requires_grad_(wants)
        last: list[Any] = []

        def call() -> None:
            with torch.set_grad_enabled(wants):
                loss = loss_of(logits, labels)
                last[:] = [loss, *(torch.autograd.grad(loss, logits) if wants else ())]

        def error() -> float:
            loss, *slopes = [part.detach().float().cpu().numpy() for part in last]
            return max(data.loss_error(loss), *map(data.gradient_error, slopes), 0.0)

        return call, error

    return enter


def _liger(torch: Any) -> Any:
    function = import_module("liger_kernel.transformers.functional").liger_cross_entropy

    def loss_of(logits: Any, labels: Any) -> Any:
        if logits.ndim != 2:
            raise ValueError("classes last only")
        # It writes the gradient over the logits.
        return function(logits.clone() if logits.requires_grad else logits, labels)

    return loss_of


_CONTESTANTS = {
    "lossd": _ours,
    "PyTorch, eager": _peer(lambda torch: torch.nn.functional.cross_entropy),
    "torch.compile": _peer(
        lambda torch: torch.compile(torch.nn.functional.cross_entropy, dynamic=False)
    ),
    "Liger": _peer(_liger),
}
