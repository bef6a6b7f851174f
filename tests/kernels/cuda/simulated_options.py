"""Every option of every function at once, and on the CPU: ``test_simulated.py`` runs this file."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import kernels
from kernels.divergence_answer import OUTPUTS as OF_DIVERGENCES
from kernels.plan import outputs_of
from tests.kernels.cuda.simulator import FUNCTIONS

RNG = np.random.default_rng(12)
SHAPE, POSITIONS, CLASSES = (2, 6, 5), (2, 6), 5
LOGITS = RNG.normal(0, 3, SHAPE).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, POSITIONS)
TEACHER = RNG.normal(0, 3, SHAPE).astype(np.float32)
TEACHER_LOG_PROBS = (TEACHER - np.log(np.exp(TEACHER).sum(-1, keepdims=True))).astype(np.float32)
LISTED = np.argsort(-TEACHER, -1)[..., :2]
WEIGHTS = RNG.random(POSITIONS)
REDUCED: dict[str, Any] = {"ignore_index": 3, "reduction": "sum", "empty": "zero"}
ROW: dict[str, Any] = {"class_axis": -1, "logits_dtype": "float32"}
SCALED: dict[str, Any] = {"logits": LOGITS, **ROW, "temperature": 0.7, "softcap": 3.0}
SEQUENCES: dict[str, Any] = {
    "labels": LABELS, "weight": RNG.random(CLASSES), "sample_weight": WEIGHTS, "shift": 1,
    "mask": np.arange(12).reshape(POSITIONS) % 5 != 2,
    "segments": np.arange(12).reshape(POSITIONS) % 6 // 3, "bytes": 17, **REDUCED,
}  # fmt: skip
DIVERGENCE: dict[str, Any] = {
    "logits": LOGITS, **ROW, **REDUCED, "labels": LABELS, "mask": SEQUENCES["mask"],
    "weight": WEIGHTS, "shift": 1, "temperature": 0.7, "temperature_squared": True,
    "check_probabilities": False, "outputs": OF_DIVERGENCES,
}  # fmt: skip
SPARSE: dict[str, Any] = {
    "target_classes": LISTED,
    "target_top_log_probs": np.take_along_axis(TEACHER_LOG_PROBS, LISTED, -1),
}
CASES: list[tuple[str, dict[str, Any]]] = [
    (
        "cross_entropy",
        {
            **SCALED, **SEQUENCES, "label_smoothing": 0.1, "z_loss": 0.01, "focal": 1.5,
            "check_probabilities": False, "top_k": 2, "chosen": np.array([1, 4]),
            "outputs": outputs_of("cross_entropy"),
        },
    ),
    (
        "nll_loss",
        {
            "log_probs": TEACHER_LOG_PROBS, **ROW, **SEQUENCES, "outputs": outputs_of("nll_loss"),
        },
    ),
    (
        "binary_cross_entropy",
        {
            "logits": LOGITS, "labels": RNG.choice([0.0, 0.25, 1.5, 3.0], SHAPE).astype(np.float32),
            **REDUCED, "weight": RNG.random(CLASSES), "pos_weight": 2 * RNG.random(CLASSES),
            "sample_weight": RNG.random(SHAPE), "logits_dtype": "float32",
            "check_probabilities": False, "outputs": outputs_of("binary_cross_entropy"),
        },
    ),
    ("log_softmax", SCALED),
    ("softmax", SCALED),
    (
        "kl_div",
        {
            **DIVERGENCE, "target_logits": TEACHER, "target_temperature": 1.3,
            "direction": "jsd", "beta": 0.25,
        },
    ),
    ("kl_div", {**DIVERGENCE, "target_log_probs": TEACHER_LOG_PROBS, "direction": "reverse"}),
    ("kl_div", {**DIVERGENCE, **SPARSE, "tail": "renormalize"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), CASES, ids=[name for name, _ in CASES])
def test_all_options_give_the_numbers_of_the_cpu(name: str, options: dict[str, Any]) -> None:
    function = getattr(kernels, name)
    got, want = function(**options), function(**options, device="cpu")
    if not isinstance(want, dict):
        got, want = {name: got}, {name: want}
    assert got.keys() == want.keys()
    for output, array in want.items():
        np.testing.assert_allclose(got[output], array, rtol=3e-6, atol=2e-6, err_msg=output)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_option_is_left_out(name: str) -> None:
    given = {option for function, options in CASES if function == name for option in options}
    assert given == inspect.signature(getattr(kernels, name)).parameters.keys() - {"device", "out"}


def test_out_is_refused() -> None:
    logits = np.zeros((2, 3), np.float32)
    gradient = np.empty_like(logits)
    with pytest.raises(kernels.InvalidInput, match="out is written on the CPU alone") as caught:
        kernels.cross_entropy(logits, [0, 1], outputs=("gradient",), out={"gradient": gradient})
    assert caught.value.field == "out"
