"""Computation of a problem on the device, piece by piece.

Two sets of buffers, each with its stream, take turns: while one piece is computed the next one is
copied. Losses and weights of all positions stay on the device, where they are added in blocks at
the end; all other arrays are copied with their piece.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
from numba import cuda

from kernels import reduce
from kernels.cuda.device import failures
from kernels.cuda.device.memory import Budget, Buffers, budget, rounded
from kernels.cuda.kinds import MOST_CLASSES, TABLE
from kernels.cuda.launch.pieces import Layout
from kernels.cuda.launch.queue import Operands, launch
from kernels.cuda.launch.tensors import (
    NOWHERE,
    RESIDENT,
    STATUS,
    Nothing,
    Wanted,
    device_options,
    more_inputs,
    operands_of,
    wanted_of,
)
from kernels.cuda.loss.nll import blocks_kernel
from kernels.errors import DeviceOutOfMemory, InvalidInput
from kernels.plan import PER_CLASS, PER_TOP, STEP, Computed, ImpossibleLabel, View
from kernels.problem import Array, Problem

# Sets of buffers: while one is computed the other one is copied.
_TURNS = 2


class _Call:
    """One problem, and the constants and arrays on the device that all its pieces share."""

    def __init__(
        self, problem: Problem, names: tuple[str, ...], upstream: float, resident: Buffers
    ) -> None:
        self.problem, self.layout = problem, Layout(problem)
        self.wanted = wanted_of(problem, names, self.layout.rows)
        self._resident = resident
        self.nothing = Nothing()
        resident.rewind()
        self._pairs = {name: resident.take(np.float64, problem.positions) for name in RESIDENT}
        self.on_device = {name: device for name, (device, _) in self._pairs.items()}
        self.options = device_options(problem, names, upstream, self._send)
        resident.stream.synchronize()
        self.arrays = {name: self._array(name) for name in self.wanted.outputs}

    def _array(self, name: str) -> Array:
        dtype = self.wanted.tensors[name].dtype
        if name in PER_CLASS:
            return np.empty_like(self.problem.logits, dtype=dtype)
        return np.empty(self.problem.positions * self.problem.values_each(name), dtype)

    def _send(self, array: Array) -> Any:
        if array.size == 0:
            return self.nothing(array.dtype)
        device, pinned = self._resident.take(array.dtype, array.size)
        pinned[:] = array
        device.copy_to_device(pinned, self._resident.stream)
        return device

    def block_sums(self) -> Array:
        """Block sums of all losses and weights, after the last piece."""
        blocks = -(-self.problem.positions // reduce.BLOCK)
        device, pinned = self._resident.take(np.float64, 2 * blocks)
        stream, threads = self._resident.stream, TABLE.threads
        kernel = blocks_kernel()[-(-blocks // threads), threads, stream]
        kernel(*self.on_device.values(), device.reshape(blocks, 2))
        device.copy_to_host(pinned, stream)
        stream.synchronize()
        return pinned.reshape(blocks, 2).copy()

    def kept(self, name: str) -> Array:
        """Losses or weights of all positions."""
        device, pinned = self._pairs[name]
        device.copy_to_host(pinned, self._resident.stream)
        self._resident.stream.synchronize()
        return pinned.copy()


class _Piece:
    """Some positions from ``first`` on, in buffers of their own."""

    def __init__(self, call: _Call, first: int, parts: dict[str, Array], buffers: Buffers) -> None:
        self._call, self._first, self._parts, self._buffers = call, first, parts, buffers
        self._count = parts["logits"].size // call.problem.classes
        buffers.rewind()
        self._tensors = {
            name: buffers.take(tensor.dtype, tensor.each * self._count)
            for name, tensor in call.wanted.tensors.items()
        }
        self._status = buffers.take(np.int64, STATUS)

    def queue(self) -> None:
        """Queue the copies to the device, the kernels, and the copies of the results back."""
        call, first, stop = self._call, self._first, self._first + self._count
        problem, stream, wanted = call.problem, self._buffers.stream, call.wanted
        for name in ("logits", "soft"):
            if name in self._tensors:
                self._send(name, self._parts[name])
        if problem.labels is not None:
            self._send("labels", problem.labels[first:stop])
        if problem.sample_weight is not None:
            self._send("sample_weight", problem.sample_weight[first:stop])
        for name, values in more_inputs(problem, first, stop).items():
            self._send(name, values)
        device, pinned = self._status
        pinned[:] = NOWHERE, 0
        device.copy_to_device(pinned, stream)
        operands = self._operands()
        launch(wanted.kind, call.layout.rows, wanted.segments, problem.operation, operands, stream)
        for name in wanted.outputs:
            device, pinned = self._tensors[name]
            device.copy_to_host(pinned, stream)
        device, pinned = self._status
        device.copy_to_host(pinned, stream)

    def collect(self) -> None:
        """Wait for the piece, and store its results. Raises ``ImpossibleLabel``."""
        self._buffers.stream.synchronize()
        wrong = int(self._status[1][0])
        if wrong != NOWHERE:
            raise ImpossibleLabel(self._first + wrong)
        for name in self._call.wanted.outputs:
            pinned = self._tensors[name][1]
            if name in PER_CLASS:
                part = self._parts[name]
                part[...] = pinned.reshape(part.shape)
            else:
                each = self._call.problem.values_each(name)
                at, size = self._first * each, self._count * each
                self._call.arrays[name][at : at + size] = pinned

    def _send(self, name: str, values: Array) -> None:
        device, pinned = self._tensors[name]
        np.copyto(pinned.reshape(values.shape), values, casting="unsafe")
        device.copy_to_device(pinned, self._buffers.stream)

    def _operands(self) -> Operands:
        call, stop = self._call, self._first + self._count
        own = {name: device for name, (device, _) in self._tensors.items()}
        own |= {name: device[self._first : stop] for name, device in call.on_device.items()}
        own["status"] = self._status[0]

        def view(name: str, data: Any) -> View:
            return call.layout.view(data, self._parts.get(name, self._parts["logits"]))

        return operands_of(call.problem, call.options, own, call.nothing, view)


def in_steps(
    problem: Problem, wanted: tuple[str, ...], upstream: float = 1.0, step: int | None = None
) -> Generator[int, None, Computed]:
    """``cpu.launch.loss.in_steps`` on the device; a step is a piece of ``step`` bytes (or STEP).

    All of the logits have to be there before the first step: else a slow sender would hold device
    memory, and as much pinned memory. A PCIe bus is some ten times as fast as a socket, so little
    time is lost. Raises ``ImpossibleLabel``, ``InvalidInput`` for more than MOST_CLASSES,
    ``DeviceOutOfMemory`` where not one position fits, and ``DeviceFailed``.
    """
    if problem.logits.size == 0:
        yield 0
        return _of_nothing(problem, wanted)
    if problem.classes > MOST_CLASSES:
        raise InvalidInput(
            f"on a GPU there may be {MOST_CLASSES:,} classes, not {problem.classes:,}",
            field="logits",
        )
    yield problem.logits.nbytes
    try:
        with failures.named():
            return (yield from _through(budget(), problem, wanted, upstream, step or STEP))
    except DeviceOutOfMemory:
        budget().drop()  # the buffers kept for the next call may be the memory that was missing
        raise


def _through(
    memory: Budget, problem: Problem, wanted: tuple[str, ...], upstream: float, step: int
) -> Generator[int, None, Computed]:
    """Compute all pieces, each a step."""
    with contextlib.ExitStack() as leases:
        resident = leases.enter_context(memory.lease(_resident_bytes(problem)))
        call = _Call(problem, wanted, upstream, resident)
        most, turns = _fitting(memory, call.wanted, problem, step)
        queue = [leases.enter_context(memory.lease(call.wanted.bytes(most))) for _ in range(turns)]
        running: list[_Piece] = []
        try:
            for first, parts in _parts(call, most):
                if first:
                    yield problem.logits.nbytes
                if len(running) == turns:
                    running.pop(0).collect()
                    queue.append(queue.pop(0))
                piece = _Piece(call, first, parts, queue[len(running)])
                running.append(piece)
                piece.queue()
            for piece in running:
                piece.collect()
        finally:
            # Kernels may still write to the buffers. The generator may be closed in another thread
            # than the one that started it, and CUDA's context is a thread's.
            cuda.current_context()
            for buffers in queue:
                buffers.stream.synchronize()
        arrays = _shaped(problem, call.arrays)
        arrays |= {name: call.kept(name) for name in RESIDENT if name in wanted}
        return call.block_sums(), arrays


def _parts(call: _Call, most: int) -> Iterator[tuple[int, dict[str, Array]]]:
    """Yield ``(first position, sub-arrays by name)`` of pieces of at most ``most`` positions."""
    whole = {"logits": call.problem.logits, **call.arrays}
    if call.problem.soft is not None:
        whole["soft"] = call.problem.soft
    names = [name for name in ("logits", "soft", *PER_CLASS) if name in whole]
    first = 0
    cuts = (call.layout.cut(whole[name], most) for name in names)
    for parts in zip(*cuts, strict=True):
        yield first, dict(zip(names, parts, strict=True))
        first += parts[0].size // call.problem.classes


def _resident_bytes(problem: Problem) -> int:
    """Bytes of losses, weights and their block sums, and of class weights in two dtypes."""
    positions = rounded(8 * problem.positions)
    blocks = rounded(16 * -(-problem.positions // reduce.BLOCK))
    return 2 * positions + blocks + 2 * rounded(8 * problem.classes)


def _fitting(memory: Budget, wanted: Wanted, problem: Problem, step: int) -> tuple[int, int]:
    """``(positions of a piece, pieces on the device at once)``. Raises ``DeviceOutOfMemory``."""
    row = problem.classes * problem.dtype.size
    most = min(problem.positions, max(1, step // row))
    free = memory.free()
    turns = 1 if most == problem.positions else _TURNS
    while most > 1 and turns * wanted.bytes(most) > free:
        most, turns = math.ceil(most / 2), _TURNS
    if turns * wanted.bytes(most) > free:
        turns = 1
    if wanted.bytes(most) > free:
        raise DeviceOutOfMemory(
            f"one position of {problem.classes} classes takes {wanted.bytes(1)} bytes of device "
            f"memory, and {free} are free"
        )
    return most, turns


def _shaped(problem: Problem, arrays: dict[str, Array]) -> dict[str, Array]:
    """Outputs with several values a position in the labels' shape and one more axis."""
    return {
        name: array.reshape(*problem.shape, problem.values_each(name)) if name in PER_TOP else array
        for name, array in arrays.items()
    }


def _of_nothing(problem: Problem, wanted: tuple[str, ...]) -> Computed:
    call_wanted = wanted_of(problem, wanted, True)
    arrays = {
        name: np.empty(
            problem.logits.shape if name in PER_CLASS else 0, call_wanted.tensors[name].dtype
        )
        for name in call_wanted.outputs
    }
    arrays |= {name: np.empty(0) for name in RESIDENT if name in wanted}
    return np.empty((0, 2)), _shaped(problem, arrays)
