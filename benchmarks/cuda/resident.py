"""The kernels on logits that are on the device already, as a training loop would have them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda

from kernels import reduce
from kernels.answer import reduced
from kernels.cpu.arguments import View
from kernels.cuda.kinds import TABLE
from kernels.cuda.launch import launch
from kernels.cuda.nll import blocks_kernel
from kernels.cuda.tensors import NOWHERE, RESIDENT, STATUS, Nothing, operands_of, rule_of, wanted_of
from kernels.dtypes import DType
from kernels.problem import check


class Resident:
    """The mean loss, and perhaps its gradient, of logits of ``shape`` (N, C, d1, ...).

    ``logits`` (of ``dtype.load``) and ``labels`` (int64) are one-dimensional and on the device.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: DType, logits: Any, labels: Any, gradient: bool
    ) -> None:
        names = ("loss", "gradient") if gradient else ("loss",)
        positions, classes = math.prod(shape) // shape[1], shape[1]
        inner = math.prod(shape[2:])
        like = np.zeros((1, classes), dtype.load)
        bits = dtype.name if dtype.size == 2 else None
        self._problem = check(
            like.view(f"<u{dtype.size}") if bits else like, np.zeros(1, np.int64), logits_dtype=bits
        )
        self._rows = inner == 1
        self._wanted = wanted_of(self._problem, names, self._rows)
        rule = rule_of(self._problem, names, 1 / positions, self._send)
        own = {"logits": logits, "labels": labels}
        for name, tensor in self._wanted.tensors.items():
            if name not in own:
                own[name] = cuda.device_array(tensor.each * positions, tensor.dtype)
        own |= {name: cuda.device_array(positions, np.float64) for name in RESIDENT}
        own["status"] = cuda.device_array(STATUS, np.int64)
        self._own = own
        self._fresh = self._send(np.array([NOWHERE, 0]))
        self._blocks = cuda.device_array((-(-positions // reduce.BLOCK), 2), np.float64)
        steps = (inner, classes * inner, 1, inner)

        def view(name: str, data: Any) -> View:
            return View(data, positions, classes, *steps)

        self._operands = operands_of(self._problem, rule, own, Nothing(), view)

    def _send(self, array: Any) -> Any:
        if array.size == 0:
            return cuda.device_array(0, array.dtype)
        return cuda.to_device(array)

    def queue(self, stream: Any) -> None:
        """Queues all kernels on ``stream``."""
        self._own["status"].copy_to_device(self._fresh, stream)
        wanted = self._wanted
        launch(wanted.kind, self._rows, wanted.segments, False, self._operands, stream)
        blocks, threads = self._blocks.shape[0], TABLE.threads
        kernel = blocks_kernel()[-(-blocks // threads), threads, stream]
        kernel(self._own["losses"], self._own["weights"], self._blocks)

    def loss(self) -> float:
        """What the queued kernels found, once they are through. The labels must all be classes."""
        assert int(self._own["status"].copy_to_host()[0]) == NOWHERE
        return float(reduced(self._problem, self._blocks.copy_to_host()))

    def gradient(self) -> Any:
        """The gradient, one-dimensional, in the order of the logits."""
        return self._own["gradient"].copy_to_host()
