"""Conversions of weights to float64, and of 16-bit floats to float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import dtypes, mismatch
from kernels.errors import InvalidInput
from kernels.plan import Array


def widened(array: Array) -> Array:
    """Convert ``array`` of 16-bit floats to float32; others are returned as they are."""
    dtype = dtypes.of(array)
    if dtype is dtypes.BFLOAT16:
        return (array.view(dtype.load).astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if dtype is dtypes.FLOAT16 else array


@np.errstate(invalid="ignore")
def checked_weights(name: str, value: Any, logits: tuple[int, ...], axis: int) -> Array | None:
    """Convert weights to float64, all finite: one a class of ``logits``' shape, or one a label."""
    if value is None:
        return None
    array = np.asarray(value)
    if dtypes.of(array) is None:
        raise mismatch.no_weights(name, array)
    by_class = name == "weight"
    if array.shape != ((logits[axis],) if by_class else mismatch.without(logits, axis)):
        raise mismatch.weight_shape(name, array.shape, logits, axis)
    return finite(name, array)


@np.errstate(invalid="ignore")
def finite(name: str, array: Array) -> Array:
    """Convert weights to float64, all finite."""
    array = np.ascontiguousarray(widened(array), np.float64).reshape(array.shape)
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        raise InvalidInput(
            f"{name}[{', '.join(map(str, at))}] is {array[at]}; weights must be finite",
            field=name,
            position=at,
        )
    return array
