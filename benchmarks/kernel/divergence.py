"""Contestants at a divergence: KL(targets || logits) of two tensors, by whoever offers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import kernels
from benchmarks.plain_read import read_and_sum
from benchmarks.problems import Data
from kernels.dtypes import BFLOAT16

# A call, a function of its result's error, and one that computes all divergences, or None.
Parts = tuple[Callable[[], Any], Callable[[Any], float], Callable[[], Any] | None]


def ours(data: Data) -> Parts:
    """``kernels.kl_div``."""
    logits, targets = data.logits, data.targets
    return (
        lambda: kernels.kl_div(logits, targets),
        data.loss_error,
        lambda: kernels.kl_div(logits, targets, reduction="none"),
    )


def plain_read(data: Data) -> Parts:
    """A plain parallel read of both tensors."""
    both = [tensor.reshape(-1).view(np.float32) for tensor in (data.logits, data.targets)]
    exact = sum(float(numbers.sum(dtype=np.float64)) for numbers in both)
    size = sum(float(np.abs(numbers).sum(dtype=np.float64)) for numbers in both)
    return (
        lambda: sum(map(read_and_sum, both)),
        lambda total: abs(total - exact) / size,
        None,
    )


def torch(data: Data, library: Any, compiled: bool) -> Parts:
    """``torch.nn.functional.kl_div`` of two log-softmaxes, with ``batchmean``."""
    functional = library.nn.functional

    def divergence(logits: Any, targets: Any) -> Any:
        return functional.kl_div(
            functional.log_softmax(logits, 1),
            functional.log_softmax(targets, 1),
            reduction="batchmean",
            log_target=True,
        )

    tensors = []
    for array in (data.logits, data.targets):
        narrow = data.case.dtype is BFLOAT16
        tensor = library.from_numpy(array.view(np.int16) if narrow else array)
        tensors.append(tensor.view(library.bfloat16) if narrow else tensor)
    function = library.compile(divergence, dynamic=False) if compiled else divergence
    return lambda: function(*tensors), lambda loss: data.loss_error(loss.float()), None
