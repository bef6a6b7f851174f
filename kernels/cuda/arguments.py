"""What kernels are told. All arrays are on the device; what is not wanted is empty."""

from __future__ import annotations

from typing import Any, NamedTuple


class Labels(NamedTuple):
    """Class indices, int64, or none; ``ignores`` is false where none can be ``ignore_index``.

    ``samples`` are the sample weights, float64, one a position, or empty.
    """

    classes: Any
    ignores: bool
    ignore_index: int
    samples: Any


class Reals(NamedTuple):
    """Those of ``Rule`` that inner loops need, in the type that these compute in."""

    scale: Any
    to_nats: Any
    cap: Any
    keep: Any
    spread: Any
    unit: Any


class Rule(NamedTuple):
    """The constants of the arithmetic; see ``cpu.arguments.Options``, of whose names these are.

    ``per_class``: log-probabilities or gradients are wanted, so ``Answers.state`` is there.
    """

    reals: Reals
    scale: float
    to_nats: float
    unit: float
    cap: float
    keep: float
    spread: float
    z_loss: float
    weight: Any
    lane_weight: Any
    mass: float
    probs: bool
    upstream: float
    ignored_too: bool
    tolerance: float
    per_class: bool


class Answers(NamedTuple):
    """Where the answers go, one a position.

    ``status`` holds the first position with an impossible label, and how many positions ``odd``
    lists: those that float32 cannot represent, which are left to ``careful``. ``state`` has a row
    for each of ``losses.MINUS`` to ``losses.OWN``. ``parts`` and ``places`` hold ``Sums``
    of each segment of each position, where there are several.
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
