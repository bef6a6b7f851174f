"""Maker of ``binary_and_focal_facts.jsonl``: PyTorch's own numbers, each with its inputs.

Run in an environment with torch 2.13.0 and torchvision's formula, which is written out here:
``python tests/data/binary_and_focal_facts.py > tests/data/binary_and_focal_facts.jsonl``.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

torch: Any = import_module("torch")
COMMAND = "python tests/data/binary_and_focal_facts.py > tests/data/binary_and_focal_facts.jsonl"


def listed(tensor: Any) -> Any:
    """Nested lists of numbers; NaN and infinities as texts."""
    if isinstance(tensor, list):
        return [listed(each) for each in tensor]
    if isinstance(tensor, float) and (tensor != tensor or abs(tensor) == float("inf")):
        return str(tensor)
    return listed(tensor.detach().tolist()) if hasattr(tensor, "detach") else tensor


def with_gradient(loss_of: Any, logits: Any, **inputs: Any) -> dict[str, Any]:
    """Loss and gradient by the logits, for each reduction, and the inputs."""
    fact = {"logits": listed(logits), **{name: listed(value) for name, value in inputs.items()}}
    for reduction in ("mean", "sum", "none"):
        x = logits.clone().requires_grad_()
        loss = loss_of(x, reduction=reduction, **inputs)
        loss.sum().backward()
        fact[reduction] = {"loss": listed(loss), "gradient": listed(x.grad)}
    return fact


def binary(x: Any, *, labels: Any, reduction: str, **options: Any) -> Any:
    """PyTorch's binary cross-entropy."""
    function = torch.nn.functional.binary_cross_entropy_with_logits
    return function(x, labels.to(x.dtype), reduction=reduction, **options)


def focal(x: Any, *, labels: Any, gamma: float, reduction: str, weight: Any = None) -> Any:
    """Softmax focal loss by autograd: (1 - p)**gamma times the weighted cross-entropy."""
    losses = torch.nn.functional.cross_entropy(x, labels, weight=weight, reduction="none")
    p = torch.softmax(x, 1).gather(1, labels[:, None])[:, 0]
    losses = (1 - p) ** gamma * losses
    if reduction == "none":
        return losses
    counted = torch.ones_like(losses) if weight is None else weight[labels]
    return losses.sum() / counted.sum() if reduction == "mean" else losses.sum()


def main() -> None:
    """Print the facts, a line each."""
    torch.manual_seed(0)
    head = {"torch": torch.__version__, "command": COMMAND}
    print(json.dumps(head))
    x = torch.randn(4, 3, dtype=torch.float64) * 3
    hard, soft = torch.randint(0, 2, (4, 3)), torch.rand(4, 3, dtype=torch.float64)
    per_class = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    image = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    far = torch.tensor([[-200.0, 200.0, 40.0], [-40.0, 0.0, 1e-9]], dtype=torch.float64)
    cases = {
        "indices": (x, {"labels": hard}),
        "soft": (x, {"labels": soft}),
        "pos_weight": (x, {"labels": hard, "pos_weight": per_class}),
        "pos_weight soft": (x, {"labels": soft, "pos_weight": per_class}),
        "weight a class": (x, {"labels": soft, "weight": per_class}),
        "weight a row": (x, {"labels": hard, "weight": torch.rand(4, 1, dtype=torch.float64)}),
        "planes": (
            image,
            {
                "labels": torch.randint(0, 2, image.shape),
                "pos_weight": per_class[:, None, None],
                "weight": torch.rand(2, 1, 2, 1, dtype=torch.float64),
            },
        ),
        "far": (far, {"labels": torch.tensor([[1, 0, 1], [0, 1, 0]])}),
        "scalar": (torch.tensor(0.3, dtype=torch.float64), {"labels": torch.tensor(1)}),
        "float32": (x.float(), {"labels": hard, "pos_weight": per_class.float()}),
    }
    for name, (logits, inputs) in cases.items():
        fact = with_gradient(binary, logits, **inputs)
        print(json.dumps({"case": f"binary/{name}", "dtype": str(logits.dtype)[6:], **fact}))
    labels = torch.tensor([0, 2, 1, 2])
    for gamma in (0.0, 0.5, 1.0, 2.0, 5.0):
        for weight in (None, per_class):
            given = {"labels": labels, "gamma": gamma} | (
                {} if weight is None else {"weight": weight}
            )
            fact = with_gradient(focal, x, **given)
            name = f"focal/{gamma}{'' if weight is None else ' weight'}"
            print(json.dumps({"case": name, "dtype": "float64", **fact}))


if __name__ == "__main__":
    main()
