"""The one proof that a kernel may run: tensors, options and shapes that make a loss.

Sizes are checked in Python integers, on the very arrays that the kernels will read. Only the
range of class indices is proved later, by the kernel as it reads them (``tile.prove_labels``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels import dtypes
from kernels.errors import InvalidInput

Array = np.ndarray[Any, Any]
REDUCTIONS = ("none", "mean", "sum")
EMPTY = ("nan", "zero", "error")


@dataclass(frozen=True)
class Problem:
    """Checked logits and labels, with the options of a loss.

    ``logits`` and ``soft`` are views of ``DType.load``; ``labels`` is one-dimensional, or None
    where ``soft`` holds class probabilities. ``weight`` is float64 or None. ``normalised``: the
    logits are log-probabilities.
    """

    logits: Array
    dtype: dtypes.DType
    axis: int
    labels: Array | None
    soft: Array | None
    weight: Array | None
    ignore_index: int
    label_smoothing: float
    reduction: str
    empty: str
    normalised: bool

    @property
    def classes(self) -> int:
        return int(self.logits.shape[self.axis])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the per-element loss: the logits' without the class axis."""
        return self.logits.shape[: self.axis] + self.logits.shape[self.axis + 1 :]

    @property
    def positions(self) -> int:
        return math.prod(self.shape)


def named(option: str, value: Any, names: tuple[str, ...]) -> str:
    """``value``, which must be one of ``names``."""
    if value not in names:
        listed = ", ".join(f'"{name}"' for name in names)
        raise InvalidInput(f"{option} must be one of {listed}, not {value!r:.50}", field=option)
    return str(value)


def floats(name: str, value: Any, bits: str | None = None) -> tuple[Array, dtypes.DType]:
    """A tensor of logits or probabilities as its kernel view, and its dtype.

    ``bits`` names the float type that an array of uint16 holds the bits of.
    """
    array = np.asarray(value)
    dtype = dtypes.of(array)
    if bits is not None:
        named(f"{name}_dtype", bits, tuple(entry.name for entry in dtypes.FLOATS))
        wanted = dtypes.BY_NAME[bits]
        if dtype is not wanted and array.dtype != f"<u{wanted.size}":
            raise InvalidInput(
                f"{name} hold {array.dtype}, which cannot be the bits of {bits}", field=name
            )
        return array.view(wanted.load), wanted
    if dtype not in dtypes.FLOATS:
        listed = ", ".join(entry.name for entry in dtypes.FLOATS)
        raise InvalidInput(
            f"{name} must be of {listed}, not {array.dtype}"
            + (f"; say {name}_dtype for bits" if array.dtype == "<u2" else ""),
            field=name,
        )
    return array.view(dtype.load), dtype


def class_axis_of(shape: tuple[int, ...], class_axis: int | None, name: str) -> int:
    """The class axis of logits of ``shape`` as a non-negative index: 1, or 0 for 1-D, if None."""
    rank = len(shape)
    if rank == 0:
        raise InvalidInput(
            f"{name} have no axis; they need one of classes, as in (C) or (N, C)", field=name
        )
    if class_axis is None:
        return min(1, rank - 1)
    if not -rank <= class_axis < rank:
        raise InvalidInput(
            f"class_axis is {class_axis}, but {name} of shape {shape} have the axes "
            f"{-rank} to {rank - 1}",
            field="class_axis",
        )
    return class_axis % rank


def _labels(value: Any, shape: tuple[int, ...], expected: tuple[int, ...]) -> tuple[Any, Any]:
    """``(class indices, None)`` or ``(None, class probabilities)``, by the rule of PyTorch."""
    array = np.asarray(value)
    dtype = dtypes.of(array)
    if array.shape == shape:
        if dtype in dtypes.FLOATS:
            return None, array
        raise InvalidInput(
            f"labels have the logits' shape {shape}, so they are class probabilities and must be "
            f"floating-point, not {array.dtype}",
            field="labels",
        )
    if array.shape != expected:
        raise InvalidInput(
            f"labels have shape {array.shape}; for logits of shape {shape} they must be class "
            f"indices of shape {expected} or class probabilities of shape {shape}",
            field="labels",
        )
    if dtype not in dtypes.INTEGERS:
        raise InvalidInput(
            f"labels that are class indices must be integers, not {array.dtype}", field="labels"
        )
    return array, None


def widened(array: Array) -> Array:
    """``array`` of one of our floats as float32, or as it is where it is no narrower."""
    dtype = dtypes.of(array)
    if dtype is dtypes.BFLOAT16:
        return (array.view(dtype.load).astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if dtype is dtypes.FLOAT16 else array


def _computed_like(soft: Array, logits: dtypes.DType) -> Array:
    """Class probabilities as a kernel view; converted only where float64 meets a narrower type."""
    dtype = dtypes.of(soft)
    assert dtype is not None
    if dtype.result == logits.result:
        return soft.view(dtype.load)
    return widened(soft).astype(logits.result)


def _weight(value: Any, classes: int) -> Array | None:
    if value is None:
        return None
    array = np.asarray(value)
    dtype = dtypes.of(array)
    if dtype is None:
        raise InvalidInput(f"weight must be floating-point, not {array.dtype}", field="weight")
    if array.shape != (classes,):
        raise InvalidInput(
            f"weight has shape {array.shape}; it must have one element for each of the "
            f"{classes} classes",
            field="weight",
        )
    array = widened(array).astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(array))
    if wrong.size:
        at = int(wrong[0])
        raise InvalidInput(
            f"weight[{at}] is {array[at]}; weights must be finite", field="weight", position=(at,)
        )
    return array


def _smoothing(value: Any) -> float:
    smoothing = float(value)
    if not 0.0 <= smoothing <= 1.0:
        raise InvalidInput(
            f"label_smoothing must be between 0.0 and 1.0, not {smoothing}",
            field="label_smoothing",
        )
    return smoothing


def check(
    logits: Any,
    labels: Any,
    *,
    normalised: bool = False,
    logits_dtype: str | None = None,
    class_axis: int | None = None,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    empty: str = "nan",
) -> Problem:
    """The problem that the arguments pose, or ``InvalidInput`` that says why they pose none."""
    name = "log_probs" if normalised else "logits"
    array, dtype = floats(name, logits, logits_dtype)
    axis = class_axis_of(array.shape, class_axis, name)
    classes = array.shape[axis]
    if classes == 0:
        raise InvalidInput(f"{name} of shape {array.shape} have no classes", field=name)
    expected = array.shape[:axis] + array.shape[axis + 1 :]
    indices, soft = _labels(labels, array.shape, expected)
    if soft is not None and normalised:
        raise InvalidInput(
            f"labels of shape {array.shape} are class probabilities; nll_loss takes class "
            f"indices, of shape {expected}",
            field="labels",
        )
    if soft is not None and ignore_index >= 0:
        raise InvalidInput(
            f"ignore_index is {ignore_index}, but class probabilities have no index to ignore",
            field="ignore_index",
        )
    if not -(2**63) <= ignore_index < 2**63:
        raise InvalidInput(
            f"ignore_index must fit in 64 bits, not {ignore_index:.3e}", field="ignore_index"
        )
    return Problem(
        array,
        dtype,
        axis,
        None if indices is None else np.require(indices, requirements=["C", "A"]).reshape(-1),
        None if soft is None else _computed_like(soft, dtype),
        _weight(weight, classes),
        ignore_index,
        _smoothing(label_smoothing),
        named("reduction", reduction, REDUCTIONS),
        named("empty", empty, EMPTY),
        normalised,
    )
