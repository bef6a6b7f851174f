"""Arguments of the CUDA kernels. All arrays are on the device; unwanted ones are empty."""

from __future__ import annotations

from typing import Any, NamedTuple


class Labels(NamedTuple):
    """Class indices, int64, or none; ``ignores`` is false where none can be ``ignore_index``.

    ``sample_weight`` is float64, one a position, or empty; so are, in a binary cross-entropy, the
    weight of a ``positive`` label and the ``factor`` of the loss.
    """

    classes: Any
    ignores: bool
    ignore_index: int
    sample_weight: Any
    positive: Any
    factor: Any


class Reals(NamedTuple):
    """Fields of ``Options`` that inner loops read, in the type that these compute in."""

    scale: Any
    to_nats: Any
    cap: Any
    keep: Any
    spread: Any
    unit: Any


class Options(NamedTuple):
    """Constants of the arithmetic: fields of ``kernels.options.Options``, and two more.

    ``reals`` repeats some for inner loops; ``cap`` is 1 without a cap (``Kind.capped``).
    ``per_class``: log-probabilities or gradients are wanted, so ``Results.state`` is there.
    """

    reals: Reals
    scale: float
    to_nats: float
    unit: float
    cap: float
    keep: float
    spread: float
    z_loss: float
    focal: float
    weight: Any
    lane_weight: Any
    mass: float
    probs: bool
    upstream: float
    ignored_too: bool
    tolerance: float
    per_class: bool


class Likeliest(NamedTuple):
    """Outputs of ``likeliest``; see ``kernels.cpu.arguments.Likeliest``."""

    top_k: int
    chosen_each: int
    chosen: Any
    max_logit: Any
    confidence: Any
    margin: Any
    top_log_probs: Any
    top_classes: Any
    chosen_log_probs: Any


class Results(NamedTuple):
    """Arrays that kernels write, with one value a position.

    ``status`` holds the first position with an impossible label, and the number of positions that
    ``odd`` lists: those that float32 cannot represent, which are left to ``careful``. ``state`` has
    a row for each of ``position.MINUS`` to ``position.LEAN``. ``parts`` and ``places`` hold the
    ``Sums`` of each segment of each position, where there are several. The others are those of
    ``plan.PER_POSITION``.
    """

    losses: Any
    weights: Any
    per_element: Any
    log_sum_exp: Any
    entropy: Any
    rank: Any
    prediction: Any
    status: Any
    odd: Any
    state: Any
    parts: Any
    places: Any
