"""Divergences on the device: a block of threads a position, in float64.

A piece is some positions with the classes last, whatever the layout of the caller's arrays.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from kernels import layout
from kernels.cuda.device import failures
from kernels.cuda.device.memory import Buffers, budget, rounded
from kernels.cuda.divergence.kernel import Arguments, divergence_kernel
from kernels.cuda.kinds import TABLE
from kernels.cuda.launch.tensors import NOWHERE
from kernels.divergence import Divergence
from kernels.errors import DeviceOutOfMemory
from kernels.plan import STEP, Computed, ImpossibleLabel
from kernels.problem import Array
from kernels.teacher import TAILS

# Outputs with one value a position, as ``cpu.launch.divergence`` has them.
_LOGS = ("label_log_probs", "target_label_log_probs")


def in_steps(
    problem: Divergence, wanted: tuple[str, ...], upstream: float = 1.0, step: int | None = None
) -> Generator[int, None, Computed]:
    """``cpu.launch.divergence.in_steps`` on the device; a step is a piece of ``step`` bytes.

    Raises ``ImpossibleLabel``, ``DeviceOutOfMemory`` and ``DeviceFailed``.
    """
    yield problem.logits.nbytes
    arrays = _outputs(problem, wanted)
    rows = max(1, (step or STEP) // max(1, problem.classes * problem.logits.itemsize))
    try:
        with failures.named():
            for first, parts in _pieces(problem, rows if problem.logits.size else 0):
                if first:
                    yield problem.logits.nbytes
                _compute(problem, upstream, first, parts, arrays)
    except DeviceOutOfMemory:
        budget().drop()
        raise
    losses = arrays.pop("losses")
    if "gradient" in arrays:
        shaped = arrays["gradient"].reshape(*problem.shape, problem.classes)
        arrays["gradient"] = np.moveaxis(shaped, -1, problem.axis)
    return losses, arrays


def _outputs(problem: Divergence, wanted: tuple[str, ...]) -> dict[str, Array]:
    """Arrays of "losses" and ``wanted``; the logits' shape has the classes last."""
    positions = problem.positions
    arrays = {"losses": np.empty(positions)}
    arrays |= {name: np.empty(positions) for name in _LOGS if name in wanted}
    if "same_top" in wanted:
        arrays["same_top"] = np.empty(positions, np.int64)
    if "gradient" in wanted:
        arrays["gradient"] = np.empty((positions, problem.classes), problem.dtype.result)
    return arrays


def _pieces(problem: Divergence, rows: int) -> Iterator[tuple[int, dict[str, Array]]]:
    """Yield ``(first position, inputs by name)`` of pieces of at most ``rows`` positions."""
    if rows == 0:
        return
    first = 0
    targets = None
    if problem.targets is not None:
        targets = layout.chunks(problem.targets, problem.axis, rows)
    for logits in layout.chunks(problem.logits, problem.axis, rows):
        stop = first + len(logits)
        parts = {"logits": logits, "kept": problem.kept, "weight": problem.weight}
        if problem.labels is not None:
            parts["labels"] = problem.labels
        if problem.top_classes is not None and problem.top_log_probs is not None:
            parts |= {"classes": problem.top_classes, "log_probs": problem.top_log_probs}
        parts = {
            name: part if name == "logits" else part[first:stop] for name, part in parts.items()
        }
        if targets is not None:
            parts["targets"] = next(targets)
        yield first, parts
        first = stop


def _compute(
    problem: Divergence, upstream: float, first: int, parts: dict[str, Array],
    arrays: dict[str, Array],
) -> None:  # fmt: skip
    """Compute one piece, and store its results from ``first`` on. Raises ``ImpossibleLabel``."""
    count = len(parts["logits"])
    outputs = {name: array[first : first + count] for name, array in arrays.items()}
    top = 0 if problem.top_classes is None else problem.top_classes.shape[1]
    sorted_ = {"sorted": np.int64, "teacher": np.float64, "student": np.float64}
    sizes = [array.nbytes for array in (*parts.values(), *outputs.values())]
    sizes += [8 * count * (top + 1)] * len(sorted_) + [8]
    with budget().lease(sum(map(rounded, sizes))) as buffers:
        buffers.rewind()
        stream = buffers.stream
        try:
            on_device = {name: _sent(part, buffers) for name, part in parts.items()}
            taken = {name: buffers.take(array.dtype, array.size) for name, array in outputs.items()}
            on_device |= {name: device for name, (device, _) in taken.items()}
            for name, dtype in sorted_.items():
                on_device[name] = buffers.take(dtype, count * (top + 1))[0].reshape(count, top + 1)
            status, pinned = buffers.take(np.int64, 1)
            pinned[:] = NOWHERE
            status.copy_to_device(pinned, stream)
            arguments = _arguments(problem, upstream, top, {**on_device, "status": status}, buffers)
            divergence_kernel()[count, TABLE.threads, stream](arguments)
            for device, host in (*taken.values(), (status, pinned)):
                device.copy_to_host(host, stream)
        finally:
            stream.synchronize()
        if int(pinned[0]) != NOWHERE:
            raise ImpossibleLabel(first + int(pinned[0]))
        for name, (_, host) in taken.items():
            outputs[name][...] = host.reshape(outputs[name].shape)


def _sent(part: Array, buffers: Buffers) -> Any:
    device, pinned = buffers.take(part.dtype, part.size)
    np.copyto(pinned.reshape(part.shape), part)
    device.copy_to_device(pinned, buffers.stream)
    return device


def _arguments(
    problem: Divergence, upstream: float, top: int, own: dict[str, Any], buffers: Buffers
) -> Arguments:
    nothing: dict[str, Any] = {
        "targets": problem.logits.dtype,
        "labels": np.int64,
        "classes": np.int64,
        "log_probs": np.float64,
        "label_log_probs": np.float64,
        "target_label_log_probs": np.float64,
        "same_top": np.int64,
        "gradient": problem.dtype.result,
    }
    for name, dtype in nothing.items():
        if name not in own:
            own[name] = buffers.take(dtype, 0)[0]
    return Arguments(
        most=problem.classes,
        top=top,
        unit=1.0 / problem.temperature,
        target_unit=1.0 / problem.target_temperature,
        mode=problem.mode,
        beta=problem.beta,
        tail=TAILS.index(problem.tail),
        factor=problem.factor,
        upstream=upstream * problem.factor / problem.temperature,
        tolerance=problem.tolerance,
        **own,
    )
