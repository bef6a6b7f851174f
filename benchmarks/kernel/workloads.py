"""Workloads beside a loss and its gradient, as lossd and as PyTorch's users compute them.

Each is named by ``Case.wants``. Results begin with the mean loss, which is compared with float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import kernels
from benchmarks.problems import Array, Data

ROWS = 8  # sequences that the positions of a case are


class Workload(NamedTuple):
    """``prepare`` gives NumPy arrays of a case, which both functions take in their order; ``exact``
    the mean loss in float64. ``ours`` and ``torch`` compute all of it; ``plain`` the loss alone.
    """

    prepare: Callable[[Data], tuple[Array, ...]]
    exact: Callable[[Data], float]
    ours: Callable[..., tuple[Any, ...]]
    plain: Callable[..., Any]
    torch: Callable[..., tuple[Any, ...]]


def _prepared_sequences(data: Data) -> tuple[Array, ...]:
    """Logits (N, T, classes), tokens (N, T), and a mask of ones: masked positions cost us nothing.

    The logits of the case score its labels, which are tokens one position later.
    """
    positions, classes = data.logits.shape
    shape = ROWS, positions // ROWS
    tokens = np.zeros(shape, np.int64)
    tokens[:, 1:] = data.labels.reshape(shape)[:, :-1]
    return data.logits.reshape(*shape, classes), tokens, np.ones(shape, np.bool_)


def _exact_sequences(data: Data) -> float:
    _, _, mask = _prepared_sequences(data)
    losses = data.per_element.reshape(mask.shape)[:, :-1]
    return float(losses[mask[:, 1:]].mean())


def _our_sequences(logits: Array, tokens: Array, mask: Array) -> tuple[Any, ...]:
    outputs = (
        "loss",
        "count",
        "weight_sum",
        "loss_sum",
        "sequence_loss",
        "sequence_count",
        "sequence_greedy",
    )
    answer = kernels.cross_entropy(
        logits, tokens, mask=mask, shift=1, class_axis=-1, outputs=outputs
    )
    return tuple(answer[name] for name in outputs)


def _plain_sequences(logits: Array, tokens: Array, mask: Array) -> Any:
    return kernels.cross_entropy(logits, tokens, class_axis=-1)


def _torch_sequences(torch: Any, logits: Any, tokens: Any, mask: Any) -> tuple[Any, ...]:
    own, labels, kept = logits[:, :-1], tokens[:, 1:], mask[:, 1:]
    losses = torch.nn.functional.cross_entropy(
        own.flatten(0, 1), labels.flatten(), reduction="none"
    )
    losses = losses.view(labels.shape).double() * kept
    counts = kept.sum(1)
    greedy = ((own.argmax(-1) == labels) | ~kept).all(1)
    total, count = losses.sum(), counts.sum()
    return total / count, count, total, losses.sum(1), counts, greedy


WORKLOADS = {
    "sequences": Workload(
        _prepared_sequences, _exact_sequences, _our_sequences, _plain_sequences, _torch_sequences
    )
}
