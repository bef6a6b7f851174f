"""Errors of tensors that do not fit together; each names the axis, shape or dtype that would."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kernels import dtypes
from kernels.errors import InvalidInput

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


def without(shape: Shape, axis: int) -> Shape:
    """``shape`` without one of its axes."""
    return shape[:axis] + shape[axis + 1 :]


def _option(axis: int, rank: int) -> str:
    """Option that makes ``axis`` the class axis; the last one is -1."""
    return f"class_axis={-1 if axis == rank - 1 else axis}"


def dtype_advice(array: Array, wanted: str) -> str:
    """Advice how to convert ``array``, of a wrong dtype, to ``wanted``; or an empty text."""
    dtype = array.dtype
    if dtype.byteorder == ">" and dtypes.of(np.empty(0, dtype.newbyteorder("<"))) is not None:
        return ": big-endian arrays are not read: pass array.astype(array.dtype.newbyteorder('<'))"
    if dtype == np.bool_ or dtypes.of(array) is not None:
        return f": pass array.astype(np.{wanted})"
    return ""


def no_floats(name: str, array: Array) -> InvalidInput:
    """Error of logits or log-probabilities of a dtype that is not in ``dtypes.FLOATS``."""
    listed = ", ".join(entry.name for entry in dtypes.FLOATS)
    bits = f", or say {name}_dtype if they are the bits of 16-bit floats"
    return InvalidInput(
        f"{name} must be of {listed}, not {array.dtype}{dtype_advice(array, 'float32')}"
        + bits * (array.dtype == "<u2"),
        field=name,
    )


def exchanged(name: str, logits: Any, labels: Any) -> InvalidInput | None:
    """Error of exchanged logits and labels, or None where they are not exchanged."""
    first, second = np.asarray(logits), np.asarray(labels)
    if dtypes.of(first) not in dtypes.INTEGERS or dtypes.of(second) not in dtypes.FLOATS:
        return None
    if first.shape not in (without(second.shape, axis) for axis in range(second.ndim)):
        return None
    return InvalidInput(
        f"{name} and labels look exchanged: {name} are {first.dtype} of shape {first.shape}, and "
        f"labels {second.dtype} of shape {second.shape}",
        field=name,
    )


def labels_like_logits(labels: Array, name: str, axis: int) -> InvalidInput:
    """Error of labels in the logits' shape that are no floats."""
    shape, indices = labels.shape, without(labels.shape, axis)
    if dtypes.of(labels) is None:
        return InvalidInput(
            f"labels in the shape of the {name}, {shape}, are class probabilities and must be "
            f"floating-point, not {labels.dtype}{dtype_advice(labels, 'float32')}",
            field="labels",
        )
    if labels.ndim > 1:
        first = f"class indices have the shape {indices} (of one-hot labels, the place of each 1)"
    else:
        size = labels.size
        first = (
            f"class indices are a single one for {name} of shape {shape}, and {size} of them take "
            f"{name} of shape ({size}, classes)"
        )
    return InvalidInput(
        f"labels are integers in the shape of the {name}, {shape}. Integers are class indices, "
        f"never probabilities: {first}; class probabilities are floats, 1.0 for 1",
        field="labels",
    )


def label_shape(labels: Array, name: str, shape: Shape, axis: int) -> InvalidInput:
    """Error of labels whose shape is neither that of class indices nor of class probabilities."""
    advice = next(_label_advice(labels, name, shape, axis), "")
    return InvalidInput(
        f"labels have shape {labels.shape}; for {name} of shape {shape}, whose classes are on axis "
        f"{axis}, they must be class indices of shape {without(shape, axis)} or class "
        f"probabilities of shape {shape}{advice}",
        field="labels",
    )


def _label_advice(labels: Array, name: str, shape: Shape, axis: int) -> Iterator[str]:
    """Yield advice that would make ``labels`` fit, the likeliest first."""
    rank, floats = len(shape), dtypes.of(labels) in dtypes.FLOATS
    # The last axis is the likeliest after ``axis``.
    axes = sorted(range(rank), key=lambda other: (other != axis, -other))
    for other in axes:
        if labels.shape == without(shape, other):
            yield f": they fit with {_option(other, rank)}"
    for other in range(rank) if floats and labels.ndim == rank else ():
        if _moved(labels.shape, other, axis) == shape:
            yield (
                f": move the axis of their classes, {other}, to {axis}, or that of the {name} to "
                f"{other} and say {_option(other, rank)}"
            )
    for other in axes:
        if labels.size == math.prod(without(shape, other)) and not floats:
            also = "" if other == axis else f", with {_option(other, rank)}"
            yield f": they fit in shape {without(shape, other)}{also}"
    if floats and labels.size == math.prod(shape):
        yield f": they fit in shape {shape}"


def _moved(shape: Shape, source: int, destination: int) -> Shape:
    rest = without(shape, source)
    return (*rest[:destination], shape[source], *rest[destination:])


def no_indices(labels: Array, name: str, shape: Shape) -> InvalidInput:
    """Error of labels in the shape of class indices that are no integers."""
    advice = dtype_advice(labels, "int64")
    position: Shape | None = None
    if dtypes.of(labels) in dtypes.FLOATS:
        advice += f"; class probabilities have the {name}' shape, {shape}"
        known = labels if labels.dtype.kind == "f" else np.zeros((0,) * labels.ndim)
        broken = np.argwhere(known != np.rint(known))
        if len(broken):
            position = tuple(int(i) for i in broken[0])
            advice = f", and {element('labels', position)} is {labels[position]:.6g}{advice}"
    return InvalidInput(
        f"labels that are class indices must be integers, not {labels.dtype}{advice}",
        field="labels",
        position=position,
    )


def no_class(label: int, index: Shape, classes: int, ignore_index: int) -> InvalidInput:
    """Error of the class index ``label`` at ``index`` that is not in 0 to ``classes`` - 1."""
    advice = ""
    if label < 0 or label == 255:
        advice = f"; ignore_index={label} leaves such labels out"
    elif classes == 1:
        advice = "; for a loss of two classes each element needs two logits, such as [0, logit]"
    elif label == classes:
        advice = "; the first class is 0"
    return InvalidInput(
        f"{element('labels', index)} is {label}; with {classes} classes it must be from 0 to "
        f"{classes - 1}, or ignore_index ({ignore_index}){advice}",
        field="labels",
        position=index,
    )


def no_distribution(row: Array, index: Shape, axis: int, tolerance: float) -> InvalidInput:
    """Error of the class probabilities ``row`` (float64) at ``index``, classes on ``axis``."""
    where = element("labels", (*index[:axis], ":", *index[axis:]))
    below = np.flatnonzero(row < 0.0)
    advice = "logits have to go through softmax first (kernels.softmax, POST /v1/softmax)"
    if below.size:
        what = f"has {row[below[0]]:.6g} for class {below[0]}; probabilities are not negative"
    else:
        total = float(row.sum())
        what = f"sums to {total:.6g}; class probabilities sum to 1, within {tolerance:.2g}"
        advice = advice if total else "sample_weight 0 leaves a row out"
    return InvalidInput(
        f"{where} {what}: {advice}, and check_probabilities=false takes labels as they are",
        field="labels",
        position=index,
    )


def element(name: str, index: Iterable[object]) -> str:
    """Name of the element at ``index``; that of a scalar has none."""
    inside = ", ".join(map(str, index))
    return f"{name}[{inside}]" if inside else name


def no_weights(name: str, array: Array) -> InvalidInput:
    """Error of weights of a dtype that is not in ``dtypes.ALL``."""
    return InvalidInput(
        f"{name} must be floating-point or integers, not {array.dtype}"
        f"{dtype_advice(array, 'uint8')}",
        field=name,
    )


def weight_shape(name: str, found: Shape, shape: Shape, axis: int) -> InvalidInput:
    """Error of weights of shape ``found``; ``shape`` is the logits', classes on ``axis``."""
    by_class = name == "weight"
    classes, labels = (shape[axis],), without(shape, axis)
    expected, other = (classes, labels) if by_class else (labels, classes)
    each, name_of_other = ("class", "sample_weight") if by_class else ("label", "weight")
    fitting = [at for at in reversed(range(len(shape))) if by_class and found == (shape[at],)]
    advice = ""
    if found == other:
        advice = f": one for each {'label' if by_class else 'class'} is {name_of_other}"
    elif fitting:
        advice = f": it fits with {_option(fitting[0], len(shape))}"
    elif math.prod(found) == math.prod(expected):
        advice = f": it fits in shape {expected}"
    return InvalidInput(
        f"{name} has shape {found}; it must have one element for each {each}, "
        f"so shape {expected}{advice}",
        field=name,
    )
