"""Checks of tensors, options and shapes, which prove that a kernel may run.

Sizes are checked in Python integers, on the very arrays that the kernels will read. Only the
range of class indices is proved later, by the kernel as it reads them (``tile.prove_labels``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from kernels import choice, dtypes, mismatch
from kernels.errors import InvalidInput
from kernels.plan import PER_TOP, TOP
from kernels.scalars import flag, integer, named, number, positive
from kernels.sequences import (
    Sequences,
    at_logits,
    mask_of,
    moved,
    no_moves,
    segments_of,
    sequences_of,
    shift_of,
)
from kernels.tensors import aligned, computed_like, flat, labels_of, weights_of

Array = np.ndarray[Any, Any]
REDUCTIONS = ("none", "mean", "sum")
EMPTY = ("nan", "zero", "error")
DEVICES = ("cpu", "cuda", "auto")
# Largest difference from 1 of a sum of class probabilities. Any of them may have been rounded to 16
# bits before, since NumPy has no bfloat16. Rounding moves each bfloat16 by up to 2**-9 of itself,
# and so their sum; a softmax in bfloat16 rounds the exponentials, their sum and the quotients; a
# sum of 131072 float32s, one after the other, is off by up to 2**-7. This is eight bfloat16
# roundings. Logits given by mistake hardly ever have such a sum and no negative value.
TOLERANCE = 2.0**-6
# Small float16 numbers are multiples of 2**-24: rounding moves each probability by half of that.
TOLERANCE_PER_CLASS = 2.0**-25


@dataclass(frozen=True)
class Problem:
    """Checked logits and labels, with the options of a loss.

    ``logits`` and ``soft`` are views of ``DType.load``; ``labels`` is one-dimensional, or None
    where ``soft`` holds class probabilities, or there are no labels. ``weight`` is float64, one a
    class, or None; ``sample_weight`` is float64, one a position, or None. ``normalised``: the
    logits are log-probabilities. ``device``: one of DEVICES.

    Labels and sample weights lie where the logits that score them do: ``shift`` positions before
    their own. ``given`` holds the labels as they were given, where that or a mask makes them others
    (flat). ``segments`` are int64, of the labels' shape, or None; ``bytes``: the option, or None.
    ``chosen`` holds classes, int64, of shape (positions, K), or (1, K) where they are the same for
    all positions. ``binary``: of a binary cross-entropy; see ``kernels.binary``. ``out``: arrays
    of the caller's for some outputs (``kernels.out``).
    """

    logits: Array
    dtype: dtypes.DType
    axis: int
    labels: Array | None = None
    soft: Array | None = None
    weight: Array | None = None
    ignore_index: int = -100
    label_smoothing: float = 0.0
    reduction: str = "none"
    empty: str = "nan"
    normalised: bool = False
    temperature: float = 1.0
    softcap: float | None = None
    z_loss: float = 0.0
    sample_weight: Array | None = None
    device: str = "cpu"
    check_probabilities: bool = True
    shift: int = 0
    given: Array | None = None
    segments: Array | None = None
    bytes: int | None = None

    top_k: int | None = None
    chosen: Array | None = None
    focal: float = 0.0
    binary: bool = False
    weight_run: int = 1
    factor: Array | None = None
    factor_run: int = 1
    out: Mapping[str, Array] = field(default_factory=dict)

    @property
    def operation(self) -> str:
        """Name of what is computed, as in ``plan.TABLE``."""
        if self.binary:
            return "binary_cross_entropy"
        return "nll_loss" if self.normalised else "cross_entropy"

    def values_each(self, output: str) -> int:
        """Number of values that ``output`` has of each position."""
        if output in TOP:
            return self.top_k or 0
        if output in PER_TOP:
            return 0 if self.chosen is None else int(self.chosen.shape[1])
        return 1

    @cached_property
    def sequences(self) -> Sequences:
        """Sequences that the labels belong to."""
        return sequences_of(self.shape, self.segments)

    @property
    def kept(self) -> Array:
        """Boolean, one-dimensional, where logits lie: false where no label is scored."""
        if self.labels is None:
            return np.ones(self.positions, np.bool_)
        return np.asarray(self.labels != self.ignore_index)

    @property
    def counts(self) -> Array:
        """Boolean, of the labels' shape and at their positions: false where one is ignored."""
        return moved(self.kept.reshape(self.shape), self.shift, False)

    @property
    def tolerance(self) -> float:
        """Largest difference from 1 of a position's sum of class probabilities."""
        if self.check_probabilities:
            return TOLERANCE + self.classes * TOLERANCE_PER_CLASS
        return math.inf

    @property
    def classes(self) -> int:
        return int(self.logits.shape[self.axis])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the labels: the logits' without the class axis."""
        return self.logits.shape[: self.axis] + self.logits.shape[self.axis + 1 :]

    @property
    def positions(self) -> int:
        return math.prod(self.shape)


def floats(name: str, value: Any, bits: str | None = None) -> tuple[Array, dtypes.DType]:
    """View of logits for kernels, and their dtype. Raises ``InvalidInput``.

    ``bits`` names the float dtype whose bits an array of uint16 holds.
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
        return aligned(array.view(wanted.load)), wanted
    if dtype not in dtypes.FLOATS:
        raise mismatch.no_floats(name, array)
    return aligned(array.view(dtype.load)), dtype


def class_axis_of(shape: tuple[int, ...], class_axis: int | None, name: str) -> int:
    """Class axis of logits of ``shape``, not negative; by default 1, or 0 for one dimension."""
    rank = len(shape)
    if rank == 0:
        raise InvalidInput(
            f"{name} have no axis; they need one of classes, as in (C) or (N, C)", field=name
        )
    if class_axis is None:
        return min(1, rank - 1)
    class_axis = integer("class_axis", class_axis)
    if not -rank <= class_axis < rank:
        raise InvalidInput(
            f"class_axis is {class_axis}, but {name} of shape {shape} have the axes "
            f"{-rank} to {rank - 1}",
            field="class_axis",
        )
    return class_axis % rank


def unlabelled(
    logits: Any,
    *,
    class_axis: int | None = None,
    logits_dtype: str | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    device: str = "cpu",
) -> Problem:
    """Check logits alone, as for log-softmax. Raises ``InvalidInput``."""
    array, dtype = floats("logits", logits, logits_dtype)
    return Problem(
        array,
        dtype,
        class_axis_of(array.shape, class_axis, "logits"),
        temperature=number("temperature", temperature),
        softcap=None if softcap is None else number("softcap", softcap),
        device=named("device", device, DEVICES),
    )


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
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    sample_weight: Any = None,
    empty: str = "nan",
    device: str = "cpu",
    check_probabilities: bool = True,
    shift: int = 0,
    mask: Any = None,
    segments: Any = None,
    bytes: int | None = None,
    top_k: int | None = None,
    chosen: Any = None,
    focal: float = 0.0,
) -> Problem:
    """Check the arguments of a loss. Raises ``InvalidInput``."""
    name = "log_probs" if normalised else "logits"
    try:
        array, dtype = floats(name, logits, logits_dtype)
    except InvalidInput as error:
        raise mismatch.exchanged(name, logits, labels) or error from None
    axis = class_axis_of(array.shape, class_axis, name)
    if array.shape[axis] == 0:
        raise InvalidInput(f"{name} of shape {array.shape} have no classes", field=name)
    indices, soft = labels_of(labels, name, array.shape, axis)
    if soft is not None and normalised:
        raise InvalidInput(
            f"labels of shape {array.shape} are class probabilities; nll_loss takes class "
            f"indices, of shape {mismatch.without(array.shape, axis)}",
            field="labels",
        )
    ignore_index = integer("ignore_index", ignore_index)
    if soft is not None and ignore_index >= 0:
        raise InvalidInput(
            f"ignore_index is {ignore_index}, but class probabilities have no index to ignore",
            field="ignore_index",
        )
    samples = weights_of("sample_weight", sample_weight, array.shape, axis)
    shape = mismatch.without(array.shape, axis)
    shift = shift_of(shift, shape)
    kept = None if mask is None else mask_of(mask, shape)
    given = None
    if shift or kept is not None:
        if indices is None:
            raise no_moves("shift" if shift else "mask")
        given, indices = flat(indices), at_logits(indices, shift, kept, ignore_index)
        samples = None if samples is None else moved(samples, -shift, 0.0)
    return Problem(
        array,
        dtype,
        axis,
        None if indices is None else flat(indices),
        None if soft is None else computed_like(soft, dtype),
        weights_of("weight", weight, array.shape, axis),
        ignore_index,
        number("label_smoothing", label_smoothing),
        named("reduction", reduction, REDUCTIONS),
        named("empty", empty, EMPTY),
        normalised,
        number("temperature", temperature),
        None if softcap is None else number("softcap", softcap),
        number("z_loss", z_loss),
        None if samples is None else samples.reshape(-1),
        named("device", device, DEVICES),
        flag("check_probabilities", check_probabilities),
        shift,
        given,
        None if segments is None else segments_of(segments, shape),
        positive("bytes", bytes),
        None if top_k is None else choice.checked_top_k(top_k, array.shape[axis]),
        None if chosen is None else choice.checked_classes(chosen, array.shape, axis),
        number("focal", focal),
    )
