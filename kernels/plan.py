"""Terms that both targets share: views of tensors, outputs, results, and labels out of range."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from kernels.compiled import inlined

Array = np.ndarray[Any, Any]
T = TypeVar("T")
# Block sums of losses and weights (``kernels.reduce``), and the wanted arrays by name.
Computed: TypeAlias = tuple[Array, Mapping[str, Array]]

# Names of the outputs. "loss" is the reduced loss. One value a position, in the labels' shape: the
# unreduced loss; the log-sum-exp of the logits; the entropy of their softmax, in nats; the label's
# rank (0: no class comes before it; -1: ignored, or a NaN among the logits); the class of the
# largest logit (the first of equals, or of NaNs). One value a class, in the logits' shape: the
# log-softmax; the gradient of the loss (of its sum for reduction "none") by the logits.
OUTPUTS = (
    "loss",
    "per_element",
    "log_sum_exp",
    "entropy",
    "rank",
    "prediction",
    "log_probs",
    "gradient",
    "max_logit",
    "confidence",
    "margin",
    "top_log_probs",
    "top_classes",
    "chosen_log_probs",
)
PER_CLASS = ("log_probs", "gradient")
# Arrays with one value a position, and their dtypes; None is ``DType.result``. "losses" and
# "weights" are not reduced, for an accumulator.
PER_POSITION: dict[str, Any] = {
    "losses": np.float64,
    "weights": np.float64,
    "per_element": None,
    "log_sum_exp": None,
    "entropy": None,
    "rank": np.int64,
    "prediction": np.int64,
}
# Outputs about the likeliest classes: one value a position, or several (``PER_TOP``).
LIKELIEST: dict[str, Any] = {
    "max_logit": None,
    "confidence": None,
    "margin": None,
    "top_log_probs": None,
    "top_classes": np.int64,
    "chosen_log_probs": None,
}
TOP = ("top_log_probs", "top_classes")
PER_TOP = (*TOP, "chosen_log_probs")
# Most classes that ``top_k`` may ask for.
MOST_TOP = 128
# Bytes of logits in a step: 1 ms at memory speed, some 10 ms where every output is wanted; a launch
# takes 20 us.
STEP = 1 << 25


class ImpossibleLabel(Exception):
    """A label is neither a class nor ignored, or class probabilities are no distribution.

    ``position`` is the first such label's.
    """

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class View(NamedTuple):
    """Logits, class probabilities or an output, as positions of classes.

    ``data`` is one-dimensional and contiguous; position p = outer * inner_size + inner has class
    c at ``outer * outer_stride + inner * inner_stride + c * class_stride``, in elements. Either the
    classes or the inner positions are neighbours in memory (a stride of 1).
    """

    data: Any
    positions: int
    classes: int
    inner_size: int
    outer_stride: int
    inner_stride: int
    class_stride: int


@inlined
def place(view: Any, position: int) -> int:
    """Index in ``view.data`` of class 0 of ``position``."""
    if view.inner_size == 1:
        return position * view.outer_stride
    outer = position // view.inner_size
    inner = position - outer * view.inner_size
    return outer * view.outer_stride + inner * view.inner_stride


def finish(steps: Generator[int, None, T]) -> T:
    """Run all of ``steps`` at once, and return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as stopped:
            result: T = stopped.value
            return result
