"""Copies and kernels of a call from the host's memory on one time line, by its streams' events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple
from unittest.mock import patch

from numba import cuda

from kernels.cuda.kinds import SIMULATED
from kernels.cuda.launch import loss


class Span(NamedTuple):
    """Copy, or the kernels of a piece: from ``start`` to ``stop`` in seconds of the recording.

    ``kind`` is "to device", "kernels" or "to host".
    """

    kind: str
    start: float
    stop: float


class _Mark:
    """Point in a stream; on the simulator, which has no streams, a point in time."""

    def __init__(self, stream: Any) -> None:
        self._event = None if SIMULATED else cuda.event(timing=True)
        self._time = time.perf_counter()
        if self._event is not None:
            self._event.record(stream)

    def since(self, first: _Mark) -> float:
        """Seconds from ``first``, once both are reached."""
        if self._event is None or first._event is None:
            return self._time - first._time
        self._event.synchronize()
        return float(first._event.elapsed_time(self._event)) / 1e3


def _watched() -> tuple[tuple[Any, str, str], ...]:
    """Functions that copy and launch, as ``(owner, attribute, kind)``; a stream comes last."""
    if SIMULATED:
        copies: Any = type(cuda.device_array(1))
        names = ("copy_to_device", "copy_to_host")
    else:
        copies = import_module("numba.cuda.cudadrv.driver")
        names = ("host_to_device", "device_to_host")
    return (
        (copies, names[0], "to device"),
        (copies, names[1], "to host"),
        (loss, "launch", "kernels"),
    )


@contextlib.contextmanager
def recorded() -> Iterator[list[Span]]:
    """Record all that is queued within the context; the list is filled at its end."""
    marks: list[tuple[str, _Mark, _Mark]] = []
    spans: list[Span] = []
    first = _Mark(0)

    def around(function: Any, kind: str) -> Any:
        def queue(*arguments: Any, **options: Any) -> Any:
            stream = options.get("stream", arguments[-1])
            start = _Mark(stream)
            try:
                return function(*arguments, **options)
            finally:
                marks.append((kind, start, _Mark(stream)))

        return queue

    with contextlib.ExitStack() as patches:
        for owner, name, kind in _watched():
            wrapped = around(owner.__dict__[name], kind)
            patches.enter_context(patch.object(owner, name, wrapped))
        yield spans
    spans += [Span(kind, start.since(first), stop.since(first)) for kind, start, stop in marks]


def _merged(spans: list[Span]) -> list[tuple[float, float]]:
    """Union of ``spans``, as disjoint (start, stop) in order."""
    times: list[tuple[float, float]] = []
    for _, start, stop in sorted(spans, key=lambda span: span.start):
        if times and start <= times[-1][1]:
            times[-1] = times[-1][0], max(times[-1][1], stop)
        else:
            times.append((start, stop))
    return times


def _total(times: list[tuple[float, float]]) -> float:
    return sum(stop - start for start, stop in times)


def summary(spans: list[Span]) -> dict[str, float]:
    """Seconds of each kind and of all together; share of the kernels' time hidden by copies."""
    kinds = {kind: [span for span in spans if span.kind == kind] for kind, _, _ in spans}
    busy = {kind: _total(_merged(those)) for kind, those in kinds.items()}
    kernels = busy.get("kernels", 0.0)
    copies = [span for span in spans if span.kind != "kernels"]
    alone = _total(_merged(spans)) - _total(_merged(copies))
    return {
        **busy,
        "any": _total(_merged(spans)),
        "from first to last": max(s.stop for s in spans) - min(s.start for s in spans),
        "kernels hidden": 1 - alone / kernels if kernels else 0.0,
    }
