"""Public functions of the kernels: PyTorch's cross-entropy and its parts, without PyTorch.

Names and meanings are those of ``torch.nn.functional``, but for ``labels`` (PyTorch: target).
Where the numbers are better on purpose, the documentation says so.

Logits are float32, float64, float16 or bfloat16 (an ``ml_dtypes.bfloat16`` array, or the bits as
uint16 with ``logits_dtype="bfloat16"``; float16 bits likewise), of shape (C), (N, C) or
(N, C, d1, ..., dK), or with the classes on any ``class_axis``. Results are float32, or float64
for float64 logits, however narrow the logits are.

With ``device="cuda"`` all is computed on the GPU (extra ``cuda``), from and to NumPy arrays;
"auto" is a GPU where there is one, and else the CPU. Both may raise ``DeviceUnavailable``,
``DeviceOutOfMemory`` and ``DeviceFailed``. ``cross_entropy`` also takes arrays that lie on the GPU
already, of any library with DLPack or ``__cuda_array_interface__``: they are not copied, and
outputs of the logits' shape stay there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kernels import devices, plan_cache, steps
from kernels.accumulate import LossAccumulator
from kernels.answer import answer
from kernels.errors import DeviceFailed, DeviceOutOfMemory, DeviceUnavailable, InvalidInput
from kernels.plan import OUTPUTS
from kernels.problem import Array, check
from kernels.shards import class_shard, merge_class_shards

__all__ = [
    "OUTPUTS",
    "DeviceFailed",
    "DeviceOutOfMemory",
    "DeviceUnavailable",
    "InvalidInput",
    "LossAccumulator",
    "class_shard",
    "cross_entropy",
    "log_softmax",
    "merge_class_shards",
    "nll_loss",
    "softmax",
    "steps",
]


def cross_entropy(
    logits: Any,
    labels: Any,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    class_axis: int | None = None,
    logits_dtype: str | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    sample_weight: Any = None,
    empty: str = "nan",
    check_probabilities: bool = True,
    outputs: Sequence[str] | None = None,
    device: str = "cpu",
) -> Any:
    """Cross-entropy between logits and labels, as ``torch.nn.functional.cross_entropy``.

    Labels are class indices, integers of any width and of the logits' shape without the class
    axis, or floating-point class probabilities of the logits' shape. ``weight`` has one element
    a class.

    Beyond PyTorch: logits x are taken as ``softcap * tanh(x / softcap)``, then divided by
    ``temperature``; ``z_loss * log_sum_exp**2`` is added to each position's loss; then it is
    multiplied by its ``sample_weight`` (of the labels' shape), which counts in the denominator of
    a mean as class weights do. ``empty`` is the mean over nothing: "nan", "zero" or an
    "error". Class probabilities must not be negative, and must sum to 1 within
    ``Problem.tolerance``, unless ``check_probabilities`` is false or the position's
    ``sample_weight`` is 0.

    Returns the loss, a scalar, or of the labels' shape with reduction "none"; or, where
    ``outputs`` lists some of ``OUTPUTS``, a dict of these arrays (see ``kernels.plan``). Raises
    ``InvalidInput``.
    """
    options: dict[str, Any] = {
        "logits_dtype": logits_dtype,
        "class_axis": class_axis,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "reduction": reduction,
        "temperature": temperature,
        "softcap": softcap,
        "z_loss": z_loss,
        "empty": empty,
        "check_probabilities": check_probabilities,
        "device": device,
    }
    if device != "cpu" and devices.lies_on_gpu(logits):
        weights = {"weight": weight, "sample_weight": sample_weight}
        return devices.cross_entropy(logits, labels, outputs, **weights, **options)
    if outputs is None and weight is None and sample_weight is None:
        known = plan_cache.answers(logits, labels, ("loss",), options, plan_cache.LARGEST)
        if known is not None:
            return known["loss"]
    problem = check(logits, labels, weight=weight, sample_weight=sample_weight, **options)
    return answer(problem, outputs)


def nll_loss(
    log_probs: Any,
    labels: Any,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    class_axis: int | None = None,
    logits_dtype: str | None = None,
    sample_weight: Any = None,
    empty: str = "nan",
    outputs: Sequence[str] | None = None,
    device: str = "cpu",
) -> Any:
    """``cross_entropy`` of log-probabilities, as ``torch.nn.functional.nll_loss``.

    Labels are class indices; outputs are "loss" and "per_element". For the rest see
    ``cross_entropy``.
    """
    problem = check(
        log_probs,
        labels,
        normalised=True,
        logits_dtype=logits_dtype,
        class_axis=class_axis,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        sample_weight=sample_weight,
        empty=empty,
        device=device,
    )
    return answer(problem, outputs)


def log_softmax(
    logits: Any,
    *,
    class_axis: int | None = None,
    logits_dtype: str | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    device: str = "cpu",
) -> Array:
    """Logarithm of the softmax over the class axis, of the logits' shape."""
    work = steps.log_softmax(
        logits,
        class_axis=class_axis,
        logits_dtype=logits_dtype,
        temperature=temperature,
        softcap=softcap,
        device=device,
    )
    return work.run()["log_probs"]


def softmax(
    logits: Any,
    *,
    class_axis: int | None = None,
    logits_dtype: str | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    device: str = "cpu",
) -> Array:
    """Softmax over the class axis, of the logits' shape."""
    work = steps.softmax(
        logits,
        class_axis=class_axis,
        logits_dtype=logits_dtype,
        temperature=temperature,
        softcap=softcap,
        device=device,
    )
    return work.run()["probs"]
