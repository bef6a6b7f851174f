"""Losses of logits that lie on the device already, without a copy of them.

Kernels run on the legacy default stream, after the work that other libraries queued there. Labels
of int64 and class probabilities are read in place as well.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numba import cuda

from kernels import reduce
from kernels.answer import answer, answers_of, impossible_label, upstream_of, wanted
from kernels.cuda.device import failures
from kernels.cuda.device.foreign import Foreign, adopt
from kernels.cuda.device.memory import Buffers, budget, rounded
from kernels.cuda.kinds import TABLE
from kernels.cuda.launch.queue import launch
from kernels.cuda.launch.tensors import (
    NOWHERE,
    RESIDENT,
    STATUS,
    Nothing,
    device_options,
    more_inputs,
    operands_of,
    wanted_of,
)
from kernels.cuda.loss.nll import blocks_kernel
from kernels.devices import lies_on_gpu
from kernels.dtypes import BY_NAME, FLOATS
from kernels.errors import InvalidInput
from kernels.plan import PER_CLASS, PER_TOP, ImpossibleLabel, View
from kernels.problem import Array, Problem, check

_STREAM = 0
# The derivative of a mean is by the labels that count; outputs that are made of labels here.
_HOST_LABELS = frozenset({"gradient", "count", "sequence_count", "sequence_greedy"})


class Resident:
    """Problem whose ``given`` tensors, by name and one-dimensional, are on the device.

    ``problem.logits`` gives only the shape and the type. ``buffers`` has ``bytes_of`` bytes for
    everything else, except outputs of the logits' shape: ``per_class``, arrays on the device.
    """

    def __init__(
        self, problem: Problem, names: tuple[str, ...], given: Mapping[str, Any], buffers: Buffers
    ) -> None:
        self._problem, self._names, self._buffers = problem, names, buffers
        rows, shape, positions = _rows(problem), problem.logits.shape, problem.positions
        self._wanted = wanted_of(problem, names, rows)
        buffers.rewind()
        upstream = upstream_of(problem) if "gradient" in names else 1.0
        self._nothing = Nothing()
        options = device_options(problem, names, upstream, self._send)
        self._pinned: dict[str, Array] = {}
        own = dict(given)
        if problem.labels is not None and "labels" not in own:
            own["labels"] = self._send(problem.labels.astype(np.int64))
        if problem.soft is not None and "soft" not in own:
            own["soft"] = self._send(problem.soft.reshape(-1))
        if problem.sample_weight is not None:
            own["sample_weight"] = self._send(problem.sample_weight)
        own |= {name: self._send(values) for name, values in more_inputs(problem).items()}
        for name, tensor in self._wanted.tensors.items():
            if name in PER_CLASS:
                own[name] = cuda.device_array(tensor.each * positions, tensor.dtype)
            elif name not in own:
                own[name], self._pinned[name] = buffers.take(tensor.dtype, tensor.each * positions)
        for name in RESIDENT:
            own[name], self._pinned[name] = buffers.take(np.float64, positions)
        own["status"], self._pinned["status"] = buffers.take(np.int64, STATUS)
        blocks = -(-positions // reduce.BLOCK)
        sums, self._pinned["sums"] = buffers.take(np.float64, 2 * blocks)
        self._own, self._sums = own, sums
        self._fresh = self._send(np.array([NOWHERE, 0]))
        self.per_class = {name: own[name].reshape(*shape) for name in PER_CLASS if name in own}
        inner = math.prod(shape[problem.axis + 1 :])
        view = positions, problem.classes, inner, problem.classes * inner, 1, inner
        self._operands = operands_of(
            problem, options, own, self._nothing, lambda name, data: View(data, *view)
        )

    def queue(self) -> None:
        """Queue all kernels; may be called again and again."""
        problem, wanted = self._problem, self._wanted
        self._own["status"].copy_to_device(self._fresh, _STREAM)
        segments, operation = wanted.segments, problem.operation
        launch(wanted.kind, _rows(problem), segments, operation, self._operands, _STREAM)
        blocks, threads = self._sums.size // 2, TABLE.threads
        kernel = blocks_kernel()[-(-blocks // threads), threads, _STREAM]
        kernel(self._own["losses"], self._own["weights"], self._sums.reshape(blocks, 2))

    def answers(self) -> dict[str, Any]:
        """Wait for the kernels, and return the outputs by name: NumPy arrays, and ``per_class``.

        Raises ``ImpossibleLabel``.
        """
        self._own["status"].copy_to_host(self._pinned["status"], _STREAM)
        cuda.synchronize()
        wrong = int(self._pinned["status"][0])
        if wrong != NOWHERE:
            raise ImpossibleLabel(wrong)
        arrays = {name: self._kept(name) for name in self._wanted.outputs if name not in PER_CLASS}
        arrays |= {name: self._kept(name) for name in RESIDENT if name in self._names}
        self._sums.copy_to_host(self._pinned["sums"])
        blocks = self._pinned["sums"].reshape(-1, 2)
        return answers_of(self._problem, self._names, blocks, {**arrays, **self.per_class})

    def _kept(self, name: str) -> Array:
        self._own[name].copy_to_host(self._pinned[name])
        array = self._pinned[name].copy()
        if name in PER_TOP:
            return array.reshape(*self._problem.shape, self._problem.values_each(name))
        return array

    def _send(self, array: Array) -> Any:
        if array.size == 0:
            return self._nothing(array.dtype)
        device, pinned = self._buffers.take(array.dtype, array.size)
        pinned[:] = array
        device.copy_to_device(pinned, _STREAM)
        return device


def _rows(problem: Problem) -> bool:
    """True where the classes of logits in C order are contiguous."""
    return math.prod(problem.logits.shape[problem.axis + 1 :]) == 1


def bytes_of(problem: Problem, names: tuple[str, ...], given: Mapping[str, Any]) -> int:
    """Bytes that ``Resident`` takes of its buffers."""
    positions, tensors = problem.positions, wanted_of(problem, names, _rows(problem)).tensors
    own = (each for name, each in tensors.items() if name not in given and name not in PER_CLASS)
    blocks = rounded(16 * -(-positions // reduce.BLOCK))
    fixed = 2 * rounded(8 * positions) + blocks + 2 * rounded(8 * STATUS)
    return sum(each.bytes(positions) for each in own) + fixed + 2 * rounded(8 * problem.classes)


def cross_entropy(logits: Any, labels: Any, outputs: Sequence[str] | None, **options: Any) -> Any:
    """``kernels.cross_entropy`` of logits on the device, in C order.

    Labels and weights may be there or on the host. Outputs of the logits' shape are arrays on the
    device (``__cuda_array_interface__``), all others NumPy's. Raises what that one raises, and
    ``InvalidInput`` for arrays that are not in C order.
    """
    there = adopt(logits, "logits")
    for name in ("weight", "sample_weight", "mask", "segments"):
        if lies_on_gpu(options.get(name)):
            options[name] = adopt(options[name], name).to_host()
    asked = ("loss",) if outputs is None else tuple(outputs)
    found = adopt(labels, "labels") if lies_on_gpu(labels) else None
    soft = found is not None and found.dtype in FLOATS
    if found is not None:
        as_given = not options.get("shift") and options.get("mask") is None
        as_given &= _HOST_LABELS.isdisjoint(asked)
        in_place = soft or (found.dtype is BY_NAME["int64"] and as_given)
        labels = found.stand_in if in_place else found.to_host()
    problem = check(there.stand_in, labels, **options)
    if soft and found is not None and found.dtype.result != problem.dtype.result:
        raise InvalidInput(
            f"labels on the GPU hold probabilities of {found.dtype.name}, and logits "
            f"{problem.dtype.name}: pass both in float64, or neither",
            field="labels",
        )
    if problem.logits.size == 0:
        return answer(problem, outputs)
    names = wanted(problem, asked)
    given = {"logits": there.view(problem.dtype.load)}
    if found is not None and in_place:
        given["soft" if soft else "labels"] = found.view(found.dtype.load)
    try:
        with failures.named(), budget().lease(bytes_of(problem, names, given)) as buffers:
            resident = Resident(problem, names, given, buffers)
            resident.queue()
            answers = resident.answers()
    except ImpossibleLabel as error:
        raise impossible_label(_with_labels(problem, found), error.position) from None
    return answers["loss"] if outputs is None else {name: answers[name] for name in asked}


def _with_labels(problem: Problem, found: Foreign | None) -> Problem:
    """``problem`` with the labels that its error tells of, read from the device."""
    if found is None:
        return problem
    values = found.to_host()
    if problem.soft is None:
        return dataclasses.replace(problem, labels=values.reshape(-1))
    return dataclasses.replace(problem, soft=values.view(problem.soft.dtype))
