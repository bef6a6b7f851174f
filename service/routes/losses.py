"""The four routes that are one kernel call each."""

from __future__ import annotations

from typing import Any

from kernels import steps
from kernels.steps import Work
from service.exchange import Arrays, Operation
from service.options import CrossEntropyOptions, LogitOptions, NllLossOptions, Options


def _cross_entropy(tensors: Arrays, options: CrossEntropyOptions, *how: Any) -> Work:
    return steps.cross_entropy(**_given(tensors, options, *how))


def _nll_loss(tensors: Arrays, options: NllLossOptions, *how: Any) -> Work:
    return steps.nll_loss(**_given(tensors, options, *how))


def _log_softmax(tensors: Arrays, options: LogitOptions, *how: Any) -> Work:
    return steps.log_softmax(**_given(tensors, options, *how))


def _softmax(tensors: Arrays, options: LogitOptions, *how: Any) -> Work:
    return steps.softmax(**_given(tensors, options, *how))


def _given(tensors: Arrays, options: Options, device: str, step: int | None) -> dict[str, Any]:
    return {**tensors, **vars(options), "device": device, "step": step}


OPERATIONS = (
    Operation(
        path="/v1/cross_entropy",
        summary="Cross-entropy of logits and labels",
        description="PyTorch's `cross_entropy`: minus the log-softmax of the logits at each label, "
        "or, for class-probability labels, minus its mean under them. In the same pass: the "
        "gradient, the log-softmax, and of each position the log-sum-exp, the entropy, the label's "
        "rank and the likeliest class.",
        needs=("logits", "labels"),
        takes=("weight", "sample_weight"),
        options=CrossEntropyOptions,
        compute=_cross_entropy,
    ),
    Operation(
        path="/v1/nll_loss",
        summary="Negative log-likelihood of log-probabilities and labels",
        description="PyTorch's `nll_loss`: minus the log-probability at each label.",
        needs=("log_probs", "labels"),
        takes=("weight", "sample_weight"),
        options=NllLossOptions,
        compute=_nll_loss,
    ),
    Operation(
        path="/v1/log_softmax",
        summary="Log-softmax of logits",
        description="The logits minus the logarithm of the sum of their exponentials, along the "
        "class axis.",
        needs=("logits",),
        takes=(),
        options=LogitOptions,
        compute=_log_softmax,
    ),
    Operation(
        path="/v1/softmax",
        summary="Softmax of logits",
        description="The exponentials of the logits, scaled to sum to 1 along the class axis.",
        needs=("logits",),
        takes=(),
        options=LogitOptions,
        compute=_softmax,
    ),
)
