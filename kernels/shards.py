"""Logits whose classes are spread over machines: what each gives, and what the parts make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels.devices import compute
from kernels.errors import InvalidInput
from kernels.problem import Array, unlabelled, widened


def class_shard(
    logits: Any,
    labels: Any,
    first_class: int,
    *,
    class_axis: int | None = None,
    logits_dtype: str | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> tuple[Array, Array]:
    """``(log_sum_exp, label_logit)`` of the classes from ``first_class`` on, that ``logits`` hold.

    Both have the shape of ``labels``, which are indices among all classes; ``label_logit`` is
    float64, and -inf where the label's class is in another shard. Raises ``InvalidInput``.
    """
    problem = unlabelled(
        logits,
        class_axis=class_axis,
        logits_dtype=logits_dtype,
        temperature=temperature,
        softcap=softcap,
    )
    indices = np.asarray(labels)
    if indices.shape != problem.shape or indices.dtype.kind not in "iu":
        raise InvalidInput(
            f"labels must be integers of shape {problem.shape}, not {indices.dtype} of "
            f"{indices.shape}",
            field="labels",
        )
    indices = indices.astype(np.int64)  # a label beyond it turns negative: in no shard
    log_sum_exp = compute(problem, ("log_sum_exp",))[1]["log_sum_exp"].reshape(problem.shape)
    here = (indices >= first_class) & (indices - first_class < problem.classes)
    own = np.expand_dims(np.where(here, indices - first_class, 0), problem.axis)
    bits = np.take_along_axis(problem.logits, own, problem.axis).squeeze(problem.axis)
    logit = widened(bits.view(problem.dtype.numpy)).astype(np.float64)
    if softcap is not None:
        logit = softcap * np.tanh(logit / softcap)
    return log_sum_exp, np.where(here, logit / temperature, -np.inf)


def merge_class_shards(shards: Sequence[tuple[Array, Array]]) -> Array:
    """Each position's cross-entropy, float64, from what ``class_shard`` gave for all classes.

    log(sum(exp(s))) over the shards' log-sum-exps s, less the label's logit, which is in one
    shard; +inf where it is in none, NaN where a logit is NaN or +inf, as in one piece.
    """
    sums = np.stack([np.asarray(part, np.float64) for part, _ in shards])
    label_logit = np.max([np.asarray(logit, np.float64) for _, logit in shards], axis=0)
    with np.errstate(invalid="ignore"):  # NaN logits give NaN losses
        total = np.logaddexp.reduce(sums, axis=0)
        return np.asarray(np.where(np.isposinf(total), np.nan, total - label_logit))
