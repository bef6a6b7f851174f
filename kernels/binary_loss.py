"""Public function of the binary cross-entropy: a label of its own for each logit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kernels.answer import answer
from kernels.binary import check as check_binary
from kernels.problem import Array


def binary_cross_entropy(
    logits: Any,
    labels: Any,
    *,
    weight: Any = None,
    pos_weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    logits_dtype: str | None = None,
    sample_weight: Any = None,
    empty: str = "nan",
    check_probabilities: bool = True,
    outputs: Sequence[str] | None = None,
    out: Mapping[str, Array] | None = None,
    device: str = "cpu",
) -> Any:
    """Binary cross-entropy of logits, as ``torch.nn.functional.binary_cross_entropy_with_logits``.

    Labels have the logits' shape: integers, 0 or 1, or floating-point probabilities from 0 to 1.
    Those equal to ``ignore_index`` are left out, of either kind. ``pos_weight`` multiplies the term
    of positive labels, ``weight`` the loss; both broadcast to the logits' shape, as PyTorch's do,
    and neither counts in the denominator of a mean. ``sample_weight`` broadcasts as well, and does
    count there. ``check_probabilities``: probabilities must be from 0 to 1.

    Returns the loss, or where ``outputs`` lists some of "loss", "per_element", "gradient", "count",
    "weight_sum" and "loss_sum", a dict of these arrays; ``out={"gradient": array}`` as in
    ``cross_entropy``, in C order. Raises ``InvalidInput``.
    """
    problem = check_binary(
        logits,
        labels,
        weight=weight,
        pos_weight=pos_weight,
        ignore_index=ignore_index,
        reduction=reduction,
        logits_dtype=logits_dtype,
        sample_weight=sample_weight,
        empty=empty,
        check_probabilities=check_probabilities,
        device=device,
    )
    inputs = {
        "logits": logits,
        "labels": labels,
        "weight": weight,
        "pos_weight": pos_weight,
        "sample_weight": sample_weight,
    }
    return answer(problem, outputs, out, inputs)
