"""The public door of the kernels: PyTorch's cross-entropy and its parts, without PyTorch.

Names and meanings are those of ``torch.nn.functional``, but for ``labels`` (PyTorch: input,
target). Where the numbers are better on purpose, README says so.

Logits are float32, float64, float16 or bfloat16 (an ``ml_dtypes.bfloat16`` array, or the bits as
uint16 with ``logits_dtype="bfloat16"``; float16 bits likewise), of shape (C), (N, C) or
(N, C, d1, ..., dK), or with the classes on any ``class_axis``. Results are float32, or float64
for float64 logits, however narrow the logits are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels.cpu.launch import run_classwise, run_loss
from kernels.errors import InvalidInput
from kernels.problem import Array, Problem, check, class_axis_of, floats
from kernels.reduce import add_blocks

OUTPUTS = ("loss", "per_element")

__all__ = ["OUTPUTS", "InvalidInput", "cross_entropy", "log_softmax", "nll_loss", "softmax"]


def cross_entropy(
    logits: Any,
    labels: Any,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    class_axis: int | None = None,
    logits_dtype: str | None = None,
    empty: str = "nan",
    outputs: Sequence[str] | None = None,
) -> Any:
    """The cross-entropy between logits and labels, as ``torch.nn.functional.cross_entropy``.

    Labels are class indices, integers of any width and of the logits' shape without the class
    axis, or floating-point class probabilities of the logits' shape. ``weight`` has one element
    a class. ``empty`` says what the mean over nothing is: "nan", "zero" or an "error".

    Returns the loss, a scalar, or of the labels' shape with reduction "none"; or, where
    ``outputs`` lists some of ``OUTPUTS``, a dict of these arrays. ``per_element`` is the loss of
    each position, whatever the reduction. Raises ``InvalidInput``.
    """
    return _answer(
        check(
            logits,
            labels,
            logits_dtype=logits_dtype,
            class_axis=class_axis,
            weight=weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction=reduction,
            empty=empty,
        ),
        outputs,
    )


def nll_loss(
    log_probs: Any,
    labels: Any,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    class_axis: int | None = None,
    logits_dtype: str | None = None,
    empty: str = "nan",
    outputs: Sequence[str] | None = None,
) -> Any:
    """``cross_entropy`` of log-probabilities, as ``torch.nn.functional.nll_loss``.

    Labels are class indices. For the rest see ``cross_entropy``.
    """
    return _answer(
        check(
            log_probs,
            labels,
            normalised=True,
            logits_dtype=logits_dtype,
            class_axis=class_axis,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            empty=empty,
        ),
        outputs,
    )


def log_softmax(
    logits: Any, *, class_axis: int | None = None, logits_dtype: str | None = None
) -> Array:
    """The logarithm of the softmax over the class axis, of the logits' shape."""
    return _classwise(logits, class_axis, logits_dtype, probs=False)


def softmax(
    logits: Any, *, class_axis: int | None = None, logits_dtype: str | None = None
) -> Array:
    """The softmax over the class axis, of the logits' shape."""
    return _classwise(logits, class_axis, logits_dtype, probs=True)


def _classwise(
    logits: Any, class_axis: int | None, logits_dtype: str | None, *, probs: bool
) -> Array:
    array, dtype = floats("logits", logits, logits_dtype)
    return run_classwise(array, class_axis_of(array.shape, class_axis, "logits"), dtype, probs)


def _answer(problem: Problem, outputs: Sequence[str] | None) -> Any:
    wanted = ("loss",) if outputs is None else tuple(outputs)
    for name in wanted:
        if name not in OUTPUTS:
            raise InvalidInput(
                f"outputs has {name!r:.50}, which is none of {', '.join(OUTPUTS)}", field="outputs"
            )
    each = "per_element" in wanted or problem.reduction == "none"
    per_element = np.empty(problem.positions if each else 0, problem.dtype.result)
    blocks, bad = run_loss(problem, per_element)
    if bad is not None:
        raise _impossible_label(problem, bad)
    if each:
        per_element = per_element.reshape(problem.shape)
    loss = per_element if problem.reduction == "none" else _reduced(problem, blocks)
    answers = {"loss": loss, "per_element": per_element}
    return loss if outputs is None else {name: answers[name] for name in wanted}


def _impossible_label(problem: Problem, position: int) -> InvalidInput:
    assert problem.labels is not None
    index = tuple(int(i) for i in np.unravel_index(position, problem.shape))
    where = f"labels[{', '.join(map(str, index))}]" if index else "labels"
    return InvalidInput(
        f"{where} is {problem.labels[position]}; with {problem.classes} classes it must be from "
        f"0 to {problem.classes - 1}, or ignore_index ({problem.ignore_index})",
        field="labels",
        position=index,
    )


def _reduced(problem: Problem, blocks: Array) -> Array:
    total, weight = add_blocks(blocks)
    if problem.reduction == "sum":
        return np.asarray(total, problem.dtype.result)
    if weight != 0.0:
        return np.asarray(total / weight, problem.dtype.result)
    if problem.empty == "error":
        raise InvalidInput(
            "the mean is over nothing: there are no labels, or all are ignored or weigh 0",
            field="labels",
        )
    return np.asarray(0.0 if problem.empty == "zero" else np.nan, problem.dtype.result)
