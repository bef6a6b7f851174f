"""What kernels are told: plain tuples, which Numba takes apart for free."""

from __future__ import annotations

from typing import Any, NamedTuple

from kernels.compiled import inlined


class View(NamedTuple):
    """Logits or class probabilities, as positions of classes.

    ``data`` is one-dimensional and contiguous; position p = outer * inner_size + inner has class
    c at ``outer * outer_stride + inner * inner_stride + c * class_stride``. Either the classes
    or the inner positions are neighbours in memory (a stride of 1).
    """

    data: Any
    positions: int
    classes: int
    inner_size: int
    outer_stride: int
    inner_stride: int
    class_stride: int


class Labels(NamedTuple):
    """Class indices of any integer width: the array of that width, and empty ones.

    ``given`` is how many there are. ``mask`` undoes the sign extension of unsigned labels (-1 for
    signed ones). ``ignores`` is false where no label of that type can equal ``ignore_index``.
    ``sample_weight`` is float64, one a position, or empty.
    """

    int8s: Any
    int16s: Any
    int32s: Any
    int64s: Any
    given: int
    mask: int
    ignores: bool
    ignore_index: int
    sample_weight: Any


class Options(NamedTuple):
    """What the arithmetic depends on, besides the tensors.

    ``scale`` turns logits into exponents of 2, and ``to_nats`` a loss in base 2 into the loss.
    ``unit`` (1 / temperature) multiplies the logits, once ``cap`` has capped them softly (None: not
    at all). ``keep`` is 1 - label smoothing, ``spread`` label smoothing / classes. ``weight`` is
    float64, one a class, or empty; ``lane_weight`` the same in the logits' compute type, ones where
    no weights were given, and empty where nothing sums over classes; ``mass`` is its sum.
    ``probs``: softmax is wanted, not its logarithm. ``upstream`` is the derivative of what is
    wanted the gradient of by each loss. ``outputs``: some beside the loss are wanted;
    ``ignored_too``: some of ignored positions. ``segments``: the ``rows.sum_part`` of each segment
    of each row, where threads shared the rows, or empty. ``tolerance``: what class probabilities
    of a position may sum to more or less than 1; infinite where they are not looked at.
    """

    scale: float
    to_nats: float
    unit: float
    cap: Any
    keep: float
    spread: float
    z_loss: float
    weight: Any
    lane_weight: Any
    mass: float
    probs: bool
    upstream: float
    outputs: bool
    ignored_too: bool
    segments: Any
    tolerance: float


class Results(NamedTuple):
    """Where the answers go, one a position; what is not wanted is empty.

    ``blocks`` holds a (loss, weight) for each block of ``kernels.reduce``, ``bad[share]`` the
    first position with an impossible label; ``losses`` and ``weights`` are float64 and not
    reduced, for an accumulator.
    """

    blocks: Any
    bad: Any
    losses: Any
    weights: Any
    per_element: Any
    log_sum_exp: Any
    entropy: Any
    rank: Any
    prediction: Any


class Scratch(NamedTuple):
    """Each worker's own memory: a tile's labels, ``tile``'s rows, and a few registers of the
    type that the logits are computed in.
    """

    labels: Any
    tiles: Any
    lanes: Any


@inlined
def place(view: Any, position: int) -> int:
    """Where class 0 of ``position`` lies in ``view.data``."""
    if view.inner_size == 1:
        return position * view.outer_stride
    outer = position // view.inner_size
    inner = position - outer * view.inner_size
    return outer * view.outer_stride + inner * view.inner_stride
