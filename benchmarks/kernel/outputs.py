"""Contestants at outputs beside the loss: our kernels, our loss alone, and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import kernels
from benchmarks.problems import Data
from kernels.dtypes import BFLOAT16

# A call that returns the loss first, and a function of its result's error.
Parts = tuple[Callable[[], Any], Callable[[Any], float]]

TOP = 20
# What each case wants beside the loss, as ``Case.wants`` names it.
OUTPUTS: dict[str, dict[str, Any]] = {
    "margin": {"outputs": ("loss", "max_logit", "confidence", "margin")},
    "top 20": {"outputs": ("loss", "top_log_probs", "top_classes"), "top_k": TOP},
}


def ours(data: Data) -> Parts:
    """``kernels.cross_entropy`` with the outputs of the case."""
    options = OUTPUTS[data.case.wants]

    def call() -> Any:
        return kernels.cross_entropy(data.logits, data.labels, **options)["loss"]

    return call, data.loss_error


def loss_alone(data: Data) -> Parts:
    """``kernels.cross_entropy`` without them."""
    return lambda: kernels.cross_entropy(data.logits, data.labels), data.loss_error


def torch(data: Data, library: Any, compiled: bool) -> Parts:
    """The same outputs by PyTorch's functions, from one log-softmax."""

    def margin(logits: Any, labels: Any) -> Any:
        log_probs = library.log_softmax(logits, 1)
        loss = library.nn.functional.nll_loss(log_probs, labels)
        largest, classes = logits.topk(2, 1)
        own = logits.gather(1, labels[:, None])[:, 0]
        other = library.where(classes[:, 0] == labels, largest[:, 1], largest[:, 0])
        return loss, largest[:, 0], log_probs.amax(1).exp(), own - other

    def top(logits: Any, labels: Any) -> Any:
        log_probs = library.log_softmax(logits, 1)
        return library.nn.functional.nll_loss(log_probs, labels), log_probs.topk(TOP, 1)

    bits = data.logits.view(np.int16) if data.case.dtype is BFLOAT16 else data.logits
    logits, labels = library.from_numpy(bits), library.from_numpy(data.labels)
    if data.case.dtype is BFLOAT16:
        logits = logits.view(library.bfloat16)
    function = margin if data.case.wants == "margin" else top
    if compiled:
        function = library.compile(function, dynamic=False)
    return lambda: function(logits, labels), lambda result: data.loss_error(result[0].float())
