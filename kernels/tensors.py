"""Tensors of a loss: class indices, class probabilities and weights, as kernels read them."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import dtypes, mismatch
from kernels.errors import InvalidInput

Array = np.ndarray[Any, Any]


def aligned(array: Array) -> Array:
    """``array``, copied where elements lie across their natural addresses."""
    return array if array.flags.aligned else array.copy(order="K")


def labels_of(value: Any, name: str, shape: tuple[int, ...], axis: int) -> tuple[Any, Any]:
    """``(class indices, None)`` or ``(None, class probabilities)``, by PyTorch's rule.

    ``shape`` is that of the tensor ``name``, whose classes are on ``axis``.
    """
    array = np.asarray(value)
    dtype = dtypes.of(array)
    if array.shape == shape:
        if dtype in dtypes.FLOATS:
            return None, array
        raise mismatch.labels_like_logits(array, name, axis)
    if array.shape != mismatch.without(shape, axis):
        raise mismatch.label_shape(array, name, shape, axis)
    if dtype not in dtypes.INTEGERS:
        raise mismatch.no_indices(array, name, shape)
    return array, None


def widened(array: Array) -> Array:
    """Convert ``array`` of 16-bit floats to float32; others are returned as they are."""
    dtype = dtypes.of(array)
    if dtype is dtypes.BFLOAT16:
        return (array.view(dtype.load).astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if dtype is dtypes.FLOAT16 else array


def flat(labels: Array) -> Array:
    """``labels`` in one dimension and C order, without a copy where they lie so already."""
    if not (labels.flags.c_contiguous and labels.flags.aligned):
        labels = np.array(labels, order="C")
    return labels.reshape(-1)


@np.errstate(invalid="ignore")  # a signalling NaN is a NaN like any other
def computed_like(soft: Array, logits: dtypes.DType) -> Array:
    """View of class probabilities for kernels; converted only if one dtype alone is float64."""
    dtype = dtypes.of(soft)
    assert dtype is not None
    if dtype.result == logits.result:
        return aligned(soft.view(dtype.load))
    return widened(soft).astype(logits.result)


@np.errstate(invalid="ignore")
def weights_of(name: str, value: Any, logits: tuple[int, ...], axis: int) -> Array | None:
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
