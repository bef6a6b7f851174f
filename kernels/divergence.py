"""Divergence of a student's logits from a teacher: checks of tensors and options.

The teacher is dense (logits or log-probabilities of all classes) or sparse (log-probabilities of
some classes of each position). Labels, mask and weights are moved to the positions of the logits
that score them (``shift``), and what kernels compute is moved back (``Divergence.at_labels``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernels import dtypes, mismatch, teacher
from kernels.dtypes import DType
from kernels.errors import InvalidInput
from kernels.problem import (
    DEVICES,
    EMPTY,
    REDUCTIONS,
    TOLERANCE,
    TOLERANCE_PER_CLASS,
    Array,
    class_axis_of,
    floats,
)
from kernels.scalars import flag, integer, named, number
from kernels.sequences import mask_of, moved, shift_of
from kernels.tensors import widened

DIRECTIONS = ("forward", "reverse", "jsd")


@dataclass(frozen=True)
class Divergence:
    """Checked logits and targets, with the options of a divergence.

    ``logits`` and ``targets`` are views of ``DType.load``; ``targets`` is None for a sparse
    teacher, whose ``top_classes`` (int64) and ``top_log_probs`` (float64) are of shape (positions,
    K). ``labels`` (int64, negative: none), ``kept`` (uint8) and ``weight`` (float64, 0 where not
    kept) have one element a position of the logits. ``normalised``: targets are log-probabilities,
    which the kernels prove to sum to 1 (a sparse teacher's: to at most 1) within ``tolerance``.
    ``out``: arrays of the caller's for some outputs (``kernels.out``).
    """

    logits: Array
    dtype: DType
    axis: int
    kept: Array
    weight: Array
    targets: Array | None = None
    top_classes: Array | None = None
    top_log_probs: Array | None = None
    labels: Array | None = None
    normalised: bool = False
    direction: str = "forward"
    beta: float = 0.5
    tail: str = "bucket"
    temperature: float = 1.0
    target_temperature: float = 1.0
    temperature_squared: bool = False
    shift: int = 0
    reduction: str = "mean"
    empty: str = "nan"
    check_probabilities: bool = True
    device: str = "cpu"
    out: Mapping[str, Array] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        return int(self.logits.shape[self.axis])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the positions: the logits' without the class axis."""
        return mismatch.without(self.logits.shape, self.axis)

    @property
    def positions(self) -> int:
        return math.prod(self.shape)

    @property
    def elements(self) -> int:
        """Number of elements that are read: logits, and a sparse teacher's classes."""
        return self.logits.size + (0 if self.top_classes is None else self.top_classes.size)

    @property
    def mode(self) -> int:
        """Number of the direction in ``divergence_formula``."""
        return DIRECTIONS.index(self.direction)

    @property
    def factor(self) -> float:
        """Factor of each divergence: the square of the temperature where that is asked for."""
        return self.temperature**2 if self.temperature_squared else 1.0

    @property
    def tolerance(self) -> float:
        """Largest difference from 1 of a position's sum of target probabilities."""
        if not self.normalised or not self.check_probabilities:
            return math.inf
        top = self.classes if self.top_classes is None else self.top_classes.shape[1]
        return TOLERANCE + top * TOLERANCE_PER_CLASS

    def at_labels(self, values: Array, unscored: float) -> Array:
        """Move ``values``, one a position of the logits, to the labels that these score."""
        shaped = values.reshape(self.shape)
        return moved(shaped, self.shift, unscored)


def check(
    logits: Any,
    *,
    class_axis: int | None = None,
    logits_dtype: str | None = None,
    labels: Any = None,
    mask: Any = None,
    weight: Any = None,
    ignore_index: int = -100,
    direction: str = "forward",
    beta: float = 0.5,
    tail: str = "bucket",
    temperature: float = 1.0,
    target_temperature: float | None = None,
    temperature_squared: bool = False,
    shift: int = 0,
    reduction: str = "mean",
    empty: str = "nan",
    check_probabilities: bool = True,
    device: str = "cpu",
    **targets: Any,
) -> Divergence:
    """Check the arguments of ``kernels.kl_div``; ``targets`` are those of ``teacher.TARGETS``.

    Raises ``InvalidInput``.
    """
    array, dtype = floats("logits", logits, logits_dtype)
    axis = class_axis_of(array.shape, class_axis, "logits")
    if array.shape[axis] == 0:
        raise InvalidInput(f"logits of shape {array.shape} have no classes", field="logits")
    given = {name: value for name, value in targets.items() if value is not None}
    named("tail", tail, teacher.TAILS)
    number("temperature", temperature)
    own = temperature if target_temperature is None else target_temperature
    fields: dict[str, Any] = teacher.fields_of(given, array.shape, axis, dtype, logits_dtype)
    if "top_classes" in fields:
        teacher.check_tail(tail, number("target_temperature", own))
    shape = mismatch.without(array.shape, axis)
    shift = shift_of(shift, shape)
    kept, weights = np.ones(shape, np.uint8), np.ones(shape)
    indices = None
    if labels is not None:
        indices, scored = _labels(labels, shape, array.shape[axis], ignore_index)
        kept &= scored
    if mask is not None:
        kept &= mask_of(mask, shape)
    if weight is not None:
        weights = _weights(weight, shape)
    kept, weights = moved(kept, -shift, 0), moved(weights, -shift, 0.0)
    indices = None if indices is None else moved(indices, -shift, -1)
    return Divergence(
        array,
        dtype,
        axis,
        np.ascontiguousarray(kept).reshape(-1),
        np.ascontiguousarray(weights * kept).reshape(-1),
        labels=None if indices is None else np.ascontiguousarray(indices).reshape(-1),
        normalised="target_logits" not in given,
        direction=named("direction", direction, DIRECTIONS),
        beta=number("beta", beta),
        tail=tail,
        temperature=number("temperature", temperature),
        target_temperature=number("target_temperature", own),
        temperature_squared=flag("temperature_squared", temperature_squared),
        shift=shift,
        reduction=named("reduction", reduction, REDUCTIONS),
        empty=named("empty", empty, EMPTY),
        check_probabilities=flag("check_probabilities", check_probabilities),
        device=named("device", device, DEVICES),
        **fields,
    )


def _weights(value: Any, shape: tuple[int, ...]) -> Array:
    """Convert weights of positions to float64, all finite."""
    array = np.asarray(value)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    if dtypes.of(array) is None:
        raise mismatch.no_weights("weight", array)
    if array.shape != shape:
        raise InvalidInput(
            f"weight has shape {array.shape}; it must have one element for each position, so shape "
            f"{shape}",
            field="weight",
        )
    weights = np.asarray(widened(array), np.float64)
    wrong = np.argwhere(~np.isfinite(weights))
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        raise InvalidInput(
            f"{mismatch.element('weight', at)} is {weights[at]}; weights must be finite",
            field="weight",
            position=at,
        )
    return weights


def _labels(
    value: Any, shape: tuple[int, ...], classes: int, ignore_index: int
) -> tuple[Array, Array]:
    """``(labels, scored)``, where labels that are not scored are -1. Raises ``InvalidInput``."""
    array, ignore_index = np.asarray(value), integer("ignore_index", ignore_index)
    if dtypes.of(array) not in dtypes.INTEGERS:
        raise InvalidInput(
            f"labels must be class indices, integers, not {array.dtype}: target_logits or "
            "target_log_probs hold a distribution",
            field="labels",
        )
    if array.shape != shape:
        raise InvalidInput(
            f"labels have shape {array.shape}; they must have one element for each position, so "
            f"shape {shape}",
            field="labels",
        )
    scored = array != ignore_index
    wrong = np.argwhere(scored & ((array < 0) | (array >= classes)))
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        raise mismatch.no_class(int(array[at]), at, classes, ignore_index)
    return np.where(scored, array, -1).astype(np.int64), scored.astype(np.uint8)


def refused(problem: Divergence, position: int) -> InvalidInput:
    """Error of the target at ``position`` (of the logits, in C order) that kernels refuse."""
    index = tuple(int(i) for i in np.unravel_index(position, problem.shape))
    if problem.targets is not None:
        row = np.moveaxis(problem.targets, problem.axis, -1)[index]
        return teacher.no_distribution(row, index, problem.axis, problem.tolerance)
    assert problem.top_classes is not None
    assert problem.top_log_probs is not None
    row, log_probs = problem.top_classes[position], problem.top_log_probs[position]
    return teacher.no_teacher(row, log_probs, index, problem.classes, problem.tolerance)
