"""Facts of PyTorch's ``kl_div``, printed as ``torch_divergence.jsonl`` beside this file has them.

From the root: ``python -m tests.data.torch_divergence > tests/data/torch_divergence.jsonl``. It
needs torch==2.13.0, which no test does. The inputs are those of ``tensors``, which the test of
these facts makes as well.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
CASES: dict[str, dict[str, Any]] = {
    "noise": {},
    "warm": {"temperature": 2.0},
    "cold": {"temperature": 0.5},
    "near": {"near": 0.05},
    "masked student": {"student": (1, 3)},
    "masked teacher": {"teacher": (0, 2)},
    "masked both": {"student": (0, 2), "teacher": (0, 2)},
    "wide": {"spread": 30.0},
}


def tensors(case: str) -> tuple[Array, Array]:
    """Logits of the student and of the teacher, float64 of shape (4, 7)."""
    made = CASES[case]
    rng = np.random.default_rng(17)
    teacher = rng.normal(0, made.get("spread", 2.0), (4, 7))
    near = made.get("near")
    student = rng.normal(0, made.get("spread", 2.0), (4, 7))
    if near is not None:
        student = teacher + near * student
    for array, name in ((student, "student"), (teacher, "teacher")):
        if name in made:
            array[made[name]] = -np.inf
    return student, teacher


def main() -> None:
    """Print the facts, one JSON object a line."""
    torch = import_module("torch")
    functional = torch.nn.functional
    print(json.dumps({"torch": torch.__version__}))
    for case, made in CASES.items():
        student, teacher = (torch.tensor(array) for array in tensors(case))
        student.requires_grad_()
        scale = made.get("temperature", 1.0)
        s, t = (functional.log_softmax(x / scale, 1) for x in (student, teacher))
        directions = {
            "forward": functional.kl_div(s, t.exp(), reduction="none"),
            "forward, log_target": functional.kl_div(s, t, reduction="none", log_target=True),
            "reverse": functional.kl_div(t, s.exp(), reduction="none"),
        }
        for direction, terms in directions.items():
            total = terms.sum()
            fact: dict[str, Any] = {"case": case, "direction": direction}
            fact["per_element"] = [str(value) for value in terms.sum(1).tolist()]
            fact["batchmean"] = str((total / len(terms)).item())
            if direction == "forward":
                made_by = functional.kl_div(s, t.exp(), reduction="batchmean")
                assert torch.equal(made_by, total / len(terms)) or made_by.isnan()
            (gradient,) = torch.autograd.grad(total, student, retain_graph=True)
            fact["gradient"] = [[str(value) for value in row] for row in gradient.tolist()]
            print(json.dumps(fact))


if __name__ == "__main__":
    main()
