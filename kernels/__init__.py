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

from collections.abc import Mapping, Sequence
from typing import Any

from kernels import devices, plan_cache, steps
from kernels.accumulate import LossAccumulator, merge
from kernels.answer import answer
from kernels.binary_loss import binary_cross_entropy
from kernels.divergence_loss import kl_div
from kernels.errors import DeviceFailed, DeviceOutOfMemory, DeviceUnavailable, InvalidInput
from kernels.out import refuse_gpu, with_array
from kernels.plan import OUTPUTS
from kernels.problem import Array, Problem, check, unlabelled
from kernels.shards import class_shard, merge_class_shards

__all__ = [
    "OUTPUTS",
    "DeviceFailed",
    "DeviceOutOfMemory",
    "DeviceUnavailable",
    "InvalidInput",
    "LossAccumulator",
    "binary_cross_entropy",
    "class_shard",
    "cross_entropy",
    "kl_div",
    "log_softmax",
    "merge",
    "merge_class_shards",
    "nll_loss",
    "softmax",
    "steps",
]


@plan_cache.planned
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
    shift: int = 0,
    mask: Any = None,
    segments: Any = None,
    bytes: int | None = None,
    top_k: int | None = None,
    chosen: Any = None,
    focal: float = 0.0,
    outputs: Sequence[str] | None = None,
    out: Mapping[str, Array] | None = None,
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

    Of sequences, whose labels have shape (N, T, ...): with ``shift`` the label at position t is
    scored by the logits at t - shift; labels whose ``mask`` is 0 are ignored, integers or Boolean
    of the labels' shape; ``segments``, integers of that shape, number the sequences that are packed
    into a row; ``bytes`` is the length of the text. Outputs that depend on a label lie at its
    position, those of the logits alone at theirs.

    Returns the loss, a scalar, or of the labels' shape with reduction "none"; or, where
    ``outputs`` lists some of ``OUTPUTS``, a dict of these arrays (see ``kernels.plan``). On the
    CPU, "gradient" and "log_probs" are written to arrays that ``out`` maps their names to, which
    lie in memory as ``np.empty_like(logits, dtype=np.float32)`` does (float64 of float64 logits),
    and apart from all tensors. Raises ``InvalidInput``.
    """
    tensors = {
        "weight": weight,
        "sample_weight": sample_weight,
        "mask": mask,
        "segments": segments,
        "chosen": chosen,
    }
    options: dict[str, Any] = {
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "reduction": reduction,
        "class_axis": class_axis,
        "logits_dtype": logits_dtype,
        "temperature": temperature,
        "softcap": softcap,
        "z_loss": z_loss,
        "empty": empty,
        "check_probabilities": check_probabilities,
        "shift": shift,
        "bytes": bytes,
        "top_k": top_k,
        "focal": focal,
        "device": device,
    }
    if device != "cpu" and devices.lies_on_gpu(logits):
        devices.target(device)  # raises where there is no GPU
        refuse_gpu(out is not None)
        from kernels.cuda.launch import resident  # takes a second, as in ``devices``

        return resident.cross_entropy(logits, labels, outputs, **tensors, **options)
    problem = check(logits, labels, **tensors, **options)
    return answer(problem, outputs, out, {"logits": logits, "labels": labels, **tensors})


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
    shift: int = 0,
    mask: Any = None,
    segments: Any = None,
    bytes: int | None = None,
    outputs: Sequence[str] | None = None,
    device: str = "cpu",
) -> Any:
    """``cross_entropy`` of log-probabilities, as ``torch.nn.functional.nll_loss``.

    Labels are class indices; outputs are those of ``plan.outputs_of("nll_loss")``. For the rest
    see ``cross_entropy``.
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
        shift=shift,
        mask=mask,
        segments=segments,
        bytes=bytes,
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
    out: Array | None = None,
    device: str = "cpu",
) -> Array:
    """Logarithm of the softmax over the class axis, of the logits' shape.

    It is written to the array ``out``, if given; see ``cross_entropy``.
    """
    problem = unlabelled(
        logits,
        class_axis=class_axis,
        logits_dtype=logits_dtype,
        temperature=temperature,
        softcap=softcap,
        device=device,
    )
    return _per_class(problem, ("log_probs",), logits, out)


def softmax(
    logits: Any,
    *,
    class_axis: int | None = None,
    logits_dtype: str | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    out: Array | None = None,
    device: str = "cpu",
) -> Array:
    """Softmax over the class axis, of the logits' shape; ``out`` as in ``log_softmax``."""
    problem = unlabelled(
        logits,
        class_axis=class_axis,
        logits_dtype=logits_dtype,
        temperature=temperature,
        softcap=softcap,
        device=device,
    )
    return _per_class(problem, ("log_probs", "probs"), logits, out)


def _per_class(problem: Problem, names: tuple[str, ...], logits: Any, out: Array | None) -> Array:
    if out is None:
        return devices.compute(problem, names)[1]["log_probs"]
    devices.compute(with_array(problem, "log_probs", out, {"logits": logits}), names)
    return out
