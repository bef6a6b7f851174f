"""Tensors that the protocol's clients send, and the numbers that must come back."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

import kernels
from kernels import dtypes
from service.codecs.base import row_of

Array = np.ndarray[Any, Any]

MODELS = [
    "cross_entropy", "nll_loss", "binary_cross_entropy", "log_softmax", "softmax", "kl_div",
]  # fmt: skip
# Tensors that a model cannot do without, where those are fewer than what it is given here: a
# divergence takes one teacher of three.
NEEDED = {"kl_div": ["logits"]}
LOGITS = np.random.default_rng(21).normal(0, 3, (6, 5)).astype(np.float32)
LABELS = np.random.default_rng(22).integers(0, 5, 6)
# Tensors and options beside the needed, without which some outputs of a model are refused.
BESIDE: dict[str, dict[str, Array]] = {"cross_entropy": {"chosen": np.array([3, 0])}}
OPTIONS: dict[str, dict[str, int]] = {
    "cross_entropy": {"top_k": 2, "bytes": 17},
    "nll_loss": {"bytes": 17},
}


def given(model: str) -> dict[str, Array]:
    """The tensors that ``model`` needs."""
    if model == "nll_loss":
        return {"log_probs": kernels.log_softmax(LOGITS), "labels": LABELS}
    if model == "binary_cross_entropy":
        return {"logits": LOGITS, "labels": (LABELS[:, None] > np.arange(5)).astype(np.int64)}
    if model == "kl_div":
        return {"target_logits": LOGITS[::-1].copy(), "logits": LOGITS, "labels": LABELS}
    return {"logits": LOGITS} | ({"labels": LABELS} if model == "cross_entropy" else {})


def asking(client: ModuleType, tensors: Mapping[str, Array], binary: bool = True) -> list[Any]:
    """``tensors`` as inputs of tritonclient's."""
    made = []
    for name, array in tensors.items():
        entry = client.InferInput(name, list(array.shape), row_of(name, array).v2)
        entry.set_data_from_numpy(array, binary_data=binary)
        made.append(entry)
    return made


def expected(
    model: str, tensors: Mapping[str, Array], outputs: tuple[str, ...] = (), **options: Any
) -> dict[str, Array]:
    """Results of the kernels themselves: to the bit what must come over the wire."""
    if model == "softmax":
        return {"probs": kernels.softmax(tensors["logits"], **options)}
    if model == "log_softmax":
        return {"log_probs": kernels.log_softmax(tensors["logits"], **options)}
    function = getattr(kernels, model)
    found = function(**tensors, outputs=outputs or ("loss", "per_element"), **options)
    return {name: np.reshape(array, array.shape or 1) for name, array in found.items()}


def same(array: Array, other: Array) -> bool:
    """Equal to the bit, in shape and in dtype."""
    return (array.shape, array.dtype, array.tobytes()) == (
        other.shape,
        other.dtype,
        other.tobytes(),
    )


FLOATS = [row.name for row in dtypes.FLOATS]
INTEGERS = [row.name for row in dtypes.INTEGERS]
