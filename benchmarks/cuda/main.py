"""CUDA kernels on a GPU, against PyTorch and Liger: ``python -m benchmarks cuda``.

"lossd" and its peers have logits and labels on the device, and a call is timed by events on the
stream, with a cold cache; it ends with the loss's block sums on the device. "lossd, arrays" are the
same arrays through the Python door, and "lossd, host" NumPy's arrays, both by the wall clock. GB/s
are those of the logits; the share is that of what a copy from device to device reads and writes a
second, or, from the host, of a pinned copy, measured in the same run.

Under NUMBA_ENABLE_CUDASIM=1 all is a rehearsal: few rows, and PyTorch, if there, on the CPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.cuda.figures import put
from benchmarks.problems import CASES, TOLERANCE, Case, Data, data_for
from kernels.devices import why_no_gpu
from kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32

ROUNDS = 20
# As many rows as one of the CPU's cases has, this many times.
_TIMES = 8
_BATCHES = tuple(Case((4096, 128256), dtype) for dtype in (FLOAT32, BFLOAT16, FLOAT16))
_LARGEST = 400  # elements of a rehearsal's case


class Entry(NamedTuple):
    """Contestant with a case: ``call`` computes, ``error`` returns the error of its result.

    ``seconds(call, rounds)`` times it, and ``limit`` is what its bytes a second are compared with.
    """

    call: Callable[[], Any]
    error: Callable[[], float]
    seconds: Callable[[Callable[[], Any], int], float]
    limit: float


class Bench:
    """State that contestants share: clock, PyTorch or None, and the two limits in bytes a second.

    ``held`` is closed after each contestant.
    """

    def __init__(self, rounds: int) -> None:
        from benchmarks.cuda.clock import Clock, transfers
        from kernels.cuda.kinds import SIMULATED

        self.clock, self.simulated = Clock(), SIMULATED
        self.copied = self.clock.copied_per_second(rounds)
        self.pinned = transfers(rounds)["host to device, pinned"]
        self.held = ExitStack()
        self.torch: Any = import_module("torch") if find_spec("torch") else None

    def cold(self, call: Callable[[], Any], rounds: int) -> float:
        """Seconds by the device's clock."""
        return self.clock.median(call, rounds)

    def tensors(self, data: Data) -> tuple[Any, Any]:
        """Logits and labels as PyTorch has them on the device."""
        torch = self.torch
        if torch is None:
            raise ImportError("there is no PyTorch")
        place = "cpu" if self.simulated else "cuda"
        bits = data.logits.view(np.int16) if data.case.dtype is BFLOAT16 else data.logits
        logits = torch.from_numpy(bits).to(place)
        logits = logits.view(torch.bfloat16) if data.case.dtype is BFLOAT16 else logits
        return logits, torch.from_numpy(data.labels).to(place)

    def arrays(self, data: Data) -> tuple[Any, Any]:
        """The same as numba-cuda has them, one-dimensional."""
        from numba import cuda

        logits = cuda.to_device(data.logits.view(data.case.dtype.load).reshape(-1))
        return logits, cuda.to_device(data.labels.reshape(-1))


def main(rounds: int = ROUNDS, quick: bool = False, only: str | None = None) -> int:
    """Run all cases; returns 0 where every contestant that ran agrees with float64.

    Raises ``SystemExit`` where there is no GPU.
    """
    why = why_no_gpu()
    if why is not None:
        raise SystemExit(f"no GPU to measure on: {why}")
    bench = Bench(rounds)
    rounds = 2 if bench.simulated else rounds
    put("limits, bytes per second", {"copy": bench.copied, "pinned copy": bench.pinned})
    table = Table(title=f"copies at {bench.copied / 1e9:.0f} GB/s, {bench.pinned / 1e9:.1f} pinned")
    for name in ("case", "contestant", "us", "GB/s of logits", "of copy", "error"):
        table.add_column(name)
    agree = True
    for data in _all_data([case for case in _cases(quick, bench) if (only or "") in case.name]):
        for name, enter in _CONTESTANTS.items():
            agree &= _row(table, name, enter, data, bench, rounds)
            bench.held.close()
            if bench.torch is not None and not bench.simulated:
                bench.torch.cuda.empty_cache()
    Console(width=110).print(table)
    try:
        _overlap(bench)
    except Exception as problem:
        put("overlap", f"{type(problem).__name__}: {problem}")
        return 1
    return 0 if agree else 1


def _cases(quick: bool, bench: Bench) -> Iterator[Case]:
    """Cases, the large batches early, since a time limit may end the run."""
    losses = [case for case in CASES if case.wants in ("loss", "gradient")]
    for case in (*losses[:2], *_BATCHES, *losses[2:]):
        if bench.simulated:
            classes = min(case.shape[1], 70)
            rest = tuple(min(size, 3) for size in case.shape[2:])
            rows = max(1, _LARGEST // (classes * int(np.prod(rest))))
            yield dataclasses.replace(case, shape=(min(rows, case.shape[0]), classes, *rest))
        else:
            yield case.smaller() if quick else case


def _all_data(cases: list[Case]) -> Iterator[Data]:
    """Data of ``cases``; a thread makes those of the next case while one is measured."""
    with ThreadPoolExecutor(1) as pool:
        made = [pool.submit(_made, cases[0])] if cases else []
        for at, _ in enumerate(cases):
            data = made.pop().result()
            if at + 1 < len(cases):
                made.append(pool.submit(_made, cases[at + 1]))
            yield data


def _made(case: Case) -> Data:
    """Data of ``case`` with its losses in float64; a large batch is an eighth of it, repeated."""
    if case not in _BATCHES:
        data = data_for(case)
        _ = data.per_element
        return data
    few = data_for(dataclasses.replace(case, shape=(case.shape[0] // _TIMES, *case.shape[1:])))
    data = Data(case, np.tile(few.logits, (_TIMES, 1)), np.tile(few.labels, _TIMES))
    vars(data)["per_element"] = np.tile(few.per_element, _TIMES)
    return data


def _row(table: Table, name: str, enter: Any, data: Data, bench: Bench, rounds: int) -> bool:
    """Add a contestant's row; returns whether it was right, or is a peer that could not run."""
    case = data.case
    try:
        entry = enter(data, bench)
        entry.call()
        off = entry.error()
        seconds = entry.seconds(entry.call, rounds)
    except Exception as problem:  # a library may raise anything
        why = f"{type(problem).__name__}: {problem}"
        table.add_row(case.name, name, "-", "-", "-", why[:60])
        put(f"{case.name}: {name}", {"refused": why[:300]})
        return not name.startswith("lossd")
    rate = data.logits.nbytes / seconds
    read = f"{rate / 1e9:.1f}", f"{rate / entry.limit:.0%}"
    table.add_row(case.name, name, f"{seconds * 1e6:.1f}", *read, f"{off:.1e}")
    figures = {"seconds": seconds, "bytes per second": rate, "share": rate / entry.limit}
    put(f"{case.name}: {name}", {**figures, "error": off})
    return bool(off <= TOLERANCE[case.dtype])


def _names(data: Data) -> tuple[str, ...]:
    return ("loss", "gradient") if data.case.wants == "gradient" else ("loss",)


def _error(data: Data, answers: dict[str, Any]) -> float:
    off = data.loss_error(answers["loss"])
    if "gradient" in answers:
        slopes = answers["gradient"]
        slopes = slopes.copy_to_host() if hasattr(slopes, "copy_to_host") else slopes
        off = max(off, data.gradient_error(np.asarray(slopes)))
    return off


def _queued(data: Data, bench: Bench) -> Entry:
    from kernels.cuda.device.memory import budget
    from kernels.cuda.launch.resident import Resident, bytes_of
    from kernels.problem import check

    names, problem = _names(data), check(data.logits, data.labels)
    given = dict(zip(("logits", "labels"), bench.arrays(data), strict=True))
    buffers = bench.held.enter_context(budget().lease(bytes_of(problem, names, given)))
    resident = Resident(problem, names, given, buffers)
    return Entry(resident.queue, lambda: _error(data, resident.answers()), bench.cold, bench.copied)


def _door(given: tuple[Any, Any], data: Data, limit: float) -> Entry:
    import kernels
    from benchmarks.cuda.clock import wall

    last: dict[str, Any] = {}

    def call() -> None:
        last.update(kernels.cross_entropy(*given, outputs=_names(data), device="cuda"))

    return Entry(call, lambda: _error(data, last), wall, limit)


def _arrays(data: Data, bench: Bench) -> Entry:
    given = (data.logits, data.labels) if bench.simulated else bench.tensors(data)
    return _door(given, data, bench.copied)


def _host(data: Data, bench: Bench) -> Entry:
    return _door((data.logits, data.labels), data, bench.pinned)


def _peer(function: Callable[[Any], Any]) -> Callable[[Data, Bench], Entry]:
    """Contestant with PyTorch tensors; ``function(torch)`` returns its loss function."""

    def enter(data: Data, bench: Bench) -> Entry:
        torch, (logits, labels) = bench.torch, bench.tensors(data)
        loss_of = function(torch)
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

        return Entry(call, error, bench.cold, bench.copied)

    return enter


def _compiled(torch: Any) -> Any:
    # Without it PyTorch falls back to eager after some compilations of one function.
    torch.compiler.reset()
    return torch.compile(torch.nn.functional.cross_entropy, dynamic=False)


def _liger(torch: Any) -> Any:
    function = import_module("liger_kernel.transformers.functional").liger_cross_entropy

    def loss_of(logits: Any, labels: Any) -> Any:
        if logits.ndim != 2:
            raise ValueError("classes last only")
        # It writes the gradient over the logits.
        return function(logits.clone() if logits.requires_grad else logits, labels)

    return loss_of


_CONTESTANTS: dict[str, Callable[[Data, Bench], Entry]] = {
    "lossd": _queued,
    "lossd, arrays": _arrays,
    "lossd, host": _host,
    "PyTorch, eager": _peer(lambda torch: torch.nn.functional.cross_entropy),
    "torch.compile": _peer(_compiled),
    "Liger": _peer(_liger),
}


def _overlap(bench: Bench) -> None:
    """Record the time line of calls from host memory, and its summary."""
    import kernels
    from benchmarks.cuda import timeline
    from kernels.cuda.launch import loss

    shape = (8, 40) if bench.simulated else (4096, 32000)
    logits = np.random.default_rng(0).standard_normal(shape, np.float32)
    labels = np.zeros(shape[0], np.int64)
    if bench.simulated:
        loss.__dict__["STEP"] = 320
    for outputs in (("loss",), ("loss", "gradient")):
        kernels.cross_entropy(logits, labels, outputs=outputs, device="cuda")
        with timeline.recorded() as spans:
            kernels.cross_entropy(logits, labels, outputs=outputs, device="cuda")
        put(f"overlap, {' and '.join(outputs)}, seconds", timeline.summary(spans))
        put(f"time line, {' and '.join(outputs)}", [[s[0], *map(_rounded, s[1:])] for s in spans])


def _rounded(seconds: float) -> float:
    return round(seconds, 7)
