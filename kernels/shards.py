"""Cross-entropy of logits whose classes are spread over machines: shards, and their merge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels.devices import compute
from kernels.errors import InvalidInput
from kernels.mismatch import element
from kernels.problem import Array, unlabelled
from kernels.scalars import integer
from kernels.tensors import widened


def class_shard(
    logits: Any,
    labels: Any,
    first_class: int,
    *,
    ignore_index: int = -100,
    class_axis: int | None = None,
    logits_dtype: str | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> tuple[Array, Array]:
    """``(log_sum_exp, label_logit)`` of ``logits``, whose first class is ``first_class`` of all.

    Both have the shape of ``labels``, which are indices among all classes. ``label_logit`` is
    float64: -inf where the label's class is in another shard, +inf where the label is
    ``ignore_index``, and NaN where the label's logit is here, but not finite. Raises
    ``InvalidInput``, also for a label that is negative and not ignored; ``merge_class_shards``
    finds labels that are too large.
    """
    problem = unlabelled(
        logits,
        class_axis=class_axis,
        logits_dtype=logits_dtype,
        temperature=temperature,
        softcap=softcap,
    )
    if problem.classes == 0:
        raise InvalidInput(
            f"logits of shape {problem.logits.shape} have no classes", field="logits"
        )
    first = integer("first_class", first_class)
    if first < 0:
        raise InvalidInput(f"first_class is {first}; it must not be negative", field="first_class")
    indices, kept = _class_indices(labels, problem.shape, integer("ignore_index", ignore_index))
    log_sum_exp = compute(problem, ("log_sum_exp",))[1]["log_sum_exp"].reshape(problem.shape)
    here = kept & (indices >= first) & (indices - first < problem.classes)
    own = np.expand_dims(np.where(here, indices - first, 0), problem.axis)
    bits = np.take_along_axis(problem.logits, own, problem.axis).squeeze(problem.axis)
    logit = widened(bits.view(problem.dtype.numpy)).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        if softcap is not None:
            logit = softcap * np.tanh(logit / softcap)
        logit = logit / temperature
    logit = np.where(here, np.where(np.isfinite(logit), logit, np.nan), -np.inf)
    return log_sum_exp, np.where(kept, logit, np.inf)


def _class_indices(labels: Any, shape: tuple[int, ...], ignore_index: int) -> tuple[Array, Array]:
    """``(class indices as int64, mask of those not ignored)``, which are proved not negative."""
    array = np.asarray(labels)
    if array.shape != shape or array.dtype.kind not in "iu":
        raise InvalidInput(
            f"labels must be integers of shape {shape}, not {array.dtype} of {array.shape}",
            field="labels",
        )
    kept = np.asarray(array != ignore_index)
    wrong = np.argwhere(kept & (array < 0))
    if len(wrong):
        index = tuple(int(i) for i in wrong[0])
        raise InvalidInput(
            f"{element('labels', index)} is {array[index]}; it must be the index of a class, from "
            f"0 on, or ignore_index ({ignore_index})",
            field="labels",
            position=index,
        )
    return array.astype(np.int64), kept  # beyond int64 it turns negative: in no shard


def merge_class_shards(shards: Sequence[tuple[Array, Array]]) -> Array:
    """Cross-entropy of each position, float64, from the ``class_shard`` of all classes.

    log(sum(exp(s))) over the shards' log-sum-exps s, less the label's logit, which is in one
    shard; 0 where the label is ignored, NaN where a logit is NaN or +inf, as in one piece. Raises
    ``InvalidInput``, which names the position, for a label that no shard holds, or several do.
    """
    parts = [tuple(np.asarray(array, np.float64) for array in shard) for shard in shards]
    shapes = {array.shape for part in parts for array in part}
    if len(shapes) != 1:
        raise InvalidInput(f"the shards must be of one shape, not {sorted(shapes)}", field="shards")
    sums, logits = np.stack([part[0] for part in parts]), np.stack([part[1] for part in parts])
    holders, ignoring = (np.abs(logits) != np.inf).sum(0), np.isposinf(logits).sum(0)
    ignored = ignoring == len(parts)
    wrong = np.argwhere(~ignored & ((holders != 1) | (ignoring != 0)))
    if len(wrong):
        index = tuple(int(i) for i in wrong[0])
        raise InvalidInput(
            f"{element('labels', index)} is the index of a class in {holders[index]} of "
            f"{len(parts)} shards, and ignore_index in {ignoring[index]}; it must be a class of "
            "one, or ignored in all",
            field="labels",
            position=index,
        )
    with np.errstate(invalid="ignore"):  # NaN logits give NaN losses
        total = np.logaddexp.reduce(sums, axis=0)
        # A label's logit that is not finite is -inf where the sum over all classes is.
        own = logits.max(0, initial=-np.inf, where=logits == logits)
        losses = np.where(np.isposinf(total), np.nan, total - own)
    return np.asarray(np.where(ignored, 0.0, losses))
