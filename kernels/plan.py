"""Terms that both targets share: views of tensors, outputs, results, and labels out of range."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from kernels.compiled import inlined

Array = np.ndarray[Any, Any]
T = TypeVar("T")
# Block sums of losses and weights (``kernels.reduce``), and the wanted arrays by name.
Computed: TypeAlias = tuple[Array, Mapping[str, Array]]


class Kind(Enum):
    """Shape of an output: a single value, or one of each position, sequence or class, or several
    of each position, the number of which an option or a tensor says.
    """

    SCALAR = auto()
    POSITION = auto()
    SEQUENCE = auto()
    CLASS = auto()
    TOP = auto()


class Output(NamedTuple):
    """Row of ``TABLE``: shape and dtype of an output, and the calls that have it.

    ``dtype`` None is ``DType.result``. ``operations`` offer it; ``requires`` is the option or
    tensor without which it cannot be computed. ``soft``: it is also computed where the labels are
    class probabilities. ``made_of`` names the outputs that kernels write for it, where they do not
    write the output itself. ``unlabelled`` is its value where no label is scored; None: it does not
    depend on labels. ``likeliest``: its kernels are compiled when it is first asked for.
    """

    kind: Kind
    dtype: Any = None
    operations: tuple[str, ...] = ("cross_entropy",)
    requires: str | None = None
    soft: bool = True
    made_of: tuple[str, ...] = ()
    unlabelled: float | None = None
    likeliest: bool = False


_LOSSES = ("cross_entropy", "nll_loss")
_SUMS = (*_LOSSES, "binary_cross_entropy")
_REDUCED = (*_SUMS, "kl_div")
_TERMS = ("losses", "weights")
# All outputs: the reduced loss; the unreduced loss; the log-sum-exp of the logits; the entropy of
# their softmax, in nats; the label's rank (0: no class comes before it; -1: ignored, or a NaN among
# the logits); the class of the largest logit (the first of equals, or of NaNs); the log-softmax;
# the gradient of the loss (of its sum for reduction "none") by the logits; the positions that are
# not ignored, and the sums of their weights and losses; the exponential of the mean loss; of each
# sequence the sum of its losses, its positions that are not ignored, and 1 if each of their labels
# has rank 0, else 0; the mean of the sequences' perplexities; the sum of all losses in bits, over
# the number of bytes; the terms of loss_sum and of weight_sum, one of each position; the largest
# logit, as the softmax takes it; its probability; the label's logit minus the largest other; the
# largest log-probabilities and their classes, in order; the log-probabilities of chosen classes;
# the softmax. Of a divergence: 1 where the likeliest class of both sides is the same, 0 where it is
# not (-1: left out, or a NaN); the student's probability of the label minus the teacher's; the
# logarithms of these two. A value a class is in the logits' shape, a value a position in the
# labels', several have one more axis.
TABLE: dict[str, Output] = {
    "loss": Output(Kind.SCALAR, operations=_REDUCED),
    "per_element": Output(Kind.POSITION, operations=_REDUCED, unlabelled=0.0),
    "log_sum_exp": Output(Kind.POSITION),
    "entropy": Output(Kind.POSITION),
    "rank": Output(Kind.POSITION, np.int64, soft=False, unlabelled=-1),
    "prediction": Output(Kind.POSITION, np.int64),
    "log_probs": Output(Kind.CLASS, operations=("cross_entropy", "log_softmax")),
    "gradient": Output(
        Kind.CLASS, operations=("cross_entropy", "binary_cross_entropy", "kl_div"), unlabelled=0.0
    ),
    "count": Output(Kind.SCALAR, np.int64, operations=_REDUCED),
    "weight_sum": Output(Kind.SCALAR, np.float64, operations=_REDUCED),
    "loss_sum": Output(Kind.SCALAR, np.float64, operations=_REDUCED),
    "perplexity": Output(Kind.SCALAR, np.float64, _LOSSES),
    "sequence_loss": Output(Kind.SEQUENCE, np.float64, _LOSSES, made_of=("per_element",)),
    "sequence_count": Output(Kind.SEQUENCE, np.int64, _LOSSES),
    "sequence_greedy": Output(Kind.SEQUENCE, np.int64, soft=False),
    "sequence_perplexity": Output(
        Kind.SCALAR, np.float64, _LOSSES, made_of=("per_element", "losses", "weights")
    ),
    "bits_per_byte": Output(Kind.SCALAR, np.float64, _LOSSES, requires="bytes"),
    # Kernels write both or neither.
    "loss_float64": Output(Kind.POSITION, np.float64, made_of=_TERMS, unlabelled=0.0),
    "loss_weight": Output(Kind.POSITION, np.float64, made_of=_TERMS, unlabelled=0.0),
    "max_logit": Output(Kind.POSITION, likeliest=True),
    "confidence": Output(Kind.POSITION, likeliest=True),
    "margin": Output(Kind.POSITION, soft=False, unlabelled=np.nan, likeliest=True),
    "top_log_probs": Output(Kind.TOP, requires="top_k", likeliest=True),
    "top_classes": Output(Kind.TOP, np.int64, requires="top_k", likeliest=True),
    "chosen_log_probs": Output(Kind.TOP, requires="chosen", likeliest=True),
    "probs": Output(Kind.CLASS, operations=("softmax",)),
    "same_top": Output(Kind.POSITION, np.int64, operations=("kl_div",), unlabelled=-1),
    "delta_p": Output(
        Kind.POSITION,
        operations=("kl_div",),
        requires="labels",
        made_of=("label_log_probs", "target_label_log_probs"),
        unlabelled=0.0,
    ),
    "label_log_probs": Output(
        Kind.POSITION, operations=("kl_div",), requires="labels", unlabelled=0.0
    ),
    "target_label_log_probs": Output(
        Kind.POSITION, operations=("kl_div",), requires="labels", unlabelled=0.0
    ),
}


def outputs_of(operation: str) -> tuple[str, ...]:
    """Names of the outputs that ``operation`` offers."""
    return tuple(name for name, row in TABLE.items() if operation in row.operations)


def _written(kind: Kind) -> dict[str, Any]:
    """Dtypes, by name, of the outputs of ``kind`` that the loss kernels write."""
    rows = ((name, TABLE[name]) for name in OUTPUTS)
    return {
        name: row.dtype
        for name, row in rows
        if row.kind is kind and not (row.made_of or row.likeliest)
    }


OUTPUTS = outputs_of("cross_entropy")
PER_CLASS = tuple(_written(Kind.CLASS))
# Arrays with one value a position, and their dtypes; None is ``DType.result``. "losses" and
# "weights" are not reduced, for an accumulator.
PER_POSITION: dict[str, Any] = {
    "losses": np.float64,
    "weights": np.float64,
    **_written(Kind.POSITION),
}
# Outputs that sums by sequence are made for.
BY_SEQUENCE = frozenset(name for name in TABLE if name.startswith("sequence_"))
# Arrays for which kernels do more than a loss takes; and those of them that ignored positions have.
BESIDE_LOSS = frozenset(
    name
    for name, row in TABLE.items()
    if row.kind not in (Kind.SCALAR, Kind.SEQUENCE) and not row.made_of and name != "per_element"
)
OF_IGNORED = frozenset(name for name in BESIDE_LOSS if TABLE[name].unlabelled is None)
# Outputs of ``cpu.likeliest``: one value a position, or several (``PER_TOP``).
LIKELIEST = {name: row.dtype for name, row in TABLE.items() if row.likeliest}
PER_TOP = tuple(name for name, row in TABLE.items() if row.kind is Kind.TOP)
TOP = tuple(name for name in PER_TOP if TABLE[name].requires == "top_k")
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
