"""Route that shows the parts of a loss."""

from __future__ import annotations

from typing import Any

from kernels import dtypes, explain
from kernels.specialisations import Specialisation, not_compiled
from kernels.steps import Steps, Work
from service.options import ExplainOptions
from service.request.operation import Operation

# For each logit, at most: eight arrays of float64 on the way, of which three are answered.
_BYTES = 8 * 8
_ROUTES = (*explain.ROUTES, explain.DIFFERENCE)


def _compute(given: dict[str, Any]) -> Work:
    elements, dtype = given["logits"].size, dtypes.of(given["logits"])
    needed = []
    if dtype is not None and given["device"] == "cpu":
        needed = [
            Specialisation(False, dtype.name, dtype.name, False),
            Specialisation(True, str(dtype.result), str(dtype.result), False),
        ]
    return Work(
        elements, _BYTES * elements, False, _steps(**given), uncompiled=not_compiled(*needed)
    )


def _steps(*, step: int | None, **given: Any) -> Steps:
    """Compute in a single step; routes are named ``routes.formula`` and so on."""
    yield from ()
    outputs = explain.chain(**given)
    arrays = {name: array for name, array in outputs.items() if name not in _ROUTES}
    return arrays | {f"routes.{name}": outputs[name] for name in _ROUTES}


OPERATION = Operation(
    path="/v1/explain",
    summary="The chain that a loss is made of",
    description="For small inputs: softmax, log-softmax, one-hot labels, per-element loss, and the "
    "loss by three routes that must agree, with their largest difference: the formula "
    "`-sum(w * one_hot * log_softmax) / n`, `nll_loss(log_softmax(logits), labels)` and "
    "`cross_entropy(logits, labels)`. With `label_smoothing` e, `one_hot` in the formula is "
    "`(1 - e) * one_hot + e / C`. In the binary formats the routes are named "
    "`routes.formula` and so on.",
    needs=("logits", "labels"),
    takes=("weight",),
    options=ExplainOptions,
    compute=_compute,
    limit=lambda settings: settings.explain_max_elements,
)
