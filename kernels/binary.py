"""Checks of a binary cross-entropy: each logit is a position of its own, with one class."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import dtypes, mismatch
from kernels.errors import InvalidInput
from kernels.problem import DEVICES, EMPTY, REDUCTIONS, Array, Problem, floats
from kernels.scalars import flag, integer, named
from kernels.tensors import computed_like, finite, flat, widened


def check(
    logits: Any,
    labels: Any,
    *,
    logits_dtype: str | None = None,
    weight: Any = None,
    pos_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    empty: str = "nan",
    check_probabilities: bool = True,
    device: str = "cpu",
) -> Problem:
    """Check the arguments of ``kernels.binary_cross_entropy``. Raises ``InvalidInput``."""
    array, dtype = floats("logits", logits, logits_dtype)
    given = np.asarray(labels)
    kind = dtypes.of(given)
    if kind is None:
        advice = ": pass array.astype(np.uint8)" if given.dtype == np.bool_ else ""
        raise InvalidInput(
            f"labels must be integers, 0 or 1, or floating-point probabilities, not {given.dtype}"
            f"{advice}",
            field="labels",
        )
    if given.shape != array.shape:
        raise InvalidInput(
            f"labels have shape {given.shape}; they must have the shape of the logits, "
            f"{array.shape}, one for each{_class_advice(given, array)}",
            field="labels",
        )
    array = np.ascontiguousarray(array).reshape(*array.shape, 1)
    soft = None
    if kind in dtypes.FLOATS:
        soft = np.ascontiguousarray(computed_like(given, dtype)).reshape(array.shape)
    samples = _broadcast("sample_weight", sample_weight, given.shape)
    factor, factor_run = _pattern("weight", weight, given.shape)
    positive, positive_run = _pattern("pos_weight", pos_weight, given.shape)
    return Problem(
        array,
        dtype,
        array.ndim - 1,
        flat(given) if soft is None else None,
        soft,
        weight=positive,
        ignore_index=integer("ignore_index", ignore_index),
        reduction=named("reduction", reduction, REDUCTIONS),
        empty=named("empty", empty, EMPTY),
        sample_weight=samples,
        device=named("device", device, DEVICES),
        check_probabilities=flag("check_probabilities", check_probabilities),
        binary=True,
        weight_run=positive_run,
        factor=factor,
        factor_run=factor_run,
    )


def _class_advice(labels: Array, logits: Array) -> str:
    if labels.ndim == logits.ndim - 1 and dtypes.of(labels) in dtypes.INTEGERS:
        return ": class indices are for cross_entropy"
    return ""


def _expanded(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Weights in float64, with as many axes as ``shape``, to which they broadcast."""
    array = np.asarray(value)
    if dtypes.of(array) is None:
        raise mismatch.no_weights(name, array)
    sizes = (1,) * (len(shape) - array.ndim) + array.shape
    if len(sizes) != len(shape) or any(
        size not in (1, wanted) for size, wanted in zip(sizes, shape, strict=True)
    ):
        raise InvalidInput(
            f"{name} has shape {array.shape}, which does not broadcast to the logits' {shape}: "
            "each axis, counted from the last, must have their size, or 1",
            field=name,
        )
    return finite(name, array).reshape(sizes)


def _broadcast(name: str, value: Any, shape: tuple[int, ...]) -> Array | None:
    """One weight for each element of ``shape``, or None."""
    if value is None:
        return None
    # A copy, since to Numba a broadcast array is of another type: read-only.
    return np.array(np.broadcast_to(_expanded(name, value, shape), shape)).reshape(-1)


def _pattern(name: str, value: Any, shape: tuple[int, ...]) -> tuple[Array | None, int]:
    """``(weights, run)``: the element at i has weight number ``i // run``, from the first again
    after the last.
    """
    if value is None:
        return None, 1
    array = _expanded(name, value, shape)
    varied = [axis for axis, size in enumerate(array.shape) if size > 1]
    if not varied:
        return array.reshape(1), max(1, int(np.prod(shape)))
    first, last = varied[0], varied[-1]
    inner = array.shape[:first] + shape[first : last + 1] + (1,) * (len(shape) - last - 1)
    whole = np.array(np.broadcast_to(array, inner)).reshape(-1)
    return whole, max(1, int(np.prod(shape[last + 1 :])))


def kept(problem: Problem) -> Array:
    """True for each element that is not ignored, in one dimension."""
    return np.asarray(_targets(problem) != problem.ignore_index)


def _targets(problem: Problem) -> Array:
    """Labels in one dimension: integers, or floats that NumPy knows."""
    if problem.labels is not None:
        return problem.labels
    assert problem.soft is not None
    stored = next(entry for entry in dtypes.FLOATS if entry.load == problem.soft.dtype)
    return widened(problem.soft.reshape(-1).view(stored.numpy))


def impossible(problem: Problem, position: int) -> InvalidInput:
    """Error of the label at ``position``, which is neither in range nor ignored."""
    index = tuple(int(i) for i in np.unravel_index(position, problem.shape))
    value = _targets(problem)[position].item()
    right = f"0 or 1, or ignore_index ({problem.ignore_index})"
    if problem.labels is None:
        right = f"from 0 to 1, or ignore_index ({problem.ignore_index}); check_probabilities=false"
        right += " takes labels as they are"
    advice = f"; ignore_index={value:g} leaves such labels out" if value == -1 else ""
    return InvalidInput(
        f"{mismatch.element('labels', index)} is {value:g}; it must be {right}{advice}",
        field="labels",
        position=index,
    )
