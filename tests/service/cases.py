"""One set of tensors that every route can be sent, and what each answers."""

from __future__ import annotations

import numpy as np

from kernels import dtypes
from service.options import MERGEABLE
from tests import zoo
from tests.service import wire

LOGITS = np.random.default_rng(11).normal(0, 4, (6, 5, 3))
LABELS = np.random.default_rng(12).integers(0, 5, (6, 3))
WEIGHT = np.array([1, 0.5, 2, 0.25, 4])
FORMATS = list(wire.BODIES)


def worked(dtype: dtypes.DType = dtypes.FLOAT32) -> dict[str, wire.Array]:
    return {
        "logits": zoo.cast(LOGITS, dtype),
        "labels": LABELS,
        "weight": zoo.cast(WEIGHT, dtype),
    }


def tensors_for(path: str) -> dict[str, wire.Array]:
    tensors = worked()
    if path == "/v1/nll_loss":
        tensors["log_probs"] = tensors.pop("logits")
    if path == "/v1/binary_cross_entropy":
        tensors |= {"labels": LOGITS.astype(np.int64) % 2, "weight": tensors["weight"][:, None]}
        tensors["pos_weight"] = tensors["weight"][None] + 0.5
    if path == "/v1/kl_div":
        tensors["target_logits"] = tensors["logits"][::-1].copy()
        tensors["weight"] = np.full(LABELS.shape, 0.5, np.float32)
    if path.endswith("softmax"):
        tensors = {"logits": tensors["logits"]}
    return tensors


ANSWERS = {
    "/v1/cross_entropy": {*MERGEABLE},
    "/v1/nll_loss": {*MERGEABLE},
    "/v1/binary_cross_entropy": {*MERGEABLE},
    "/v1/kl_div": {*MERGEABLE},
    "/v1/log_softmax": {"log_probs"},
    "/v1/softmax": {"probs"},
}
