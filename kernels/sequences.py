"""Labels of sequences: their shift, mask and segments, and sums by sequence.

Labels have the shape (N, T, ...): N sequences, whose positions lie along axis 1. Logits score the
label ``shift`` positions later. Kernels know nothing of that: they are given labels that lie where
their logits do, with ``ignore_index`` where there is none. So nothing of the logits is moved.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kernels import dtypes, mismatch
from kernels.errors import InvalidInput
from kernels.reduce import sum_rows
from kernels.scalars import integer

Array = np.ndarray[Any, Any]
_LARGEST = np.iinfo(np.int64).max


class Sequences(NamedTuple):
    """Sequences that positions belong to: the shape of an output by sequence, and the index in it,
    flattened, of each label's position: int64, of the labels' shape.

    ``whole``: each is all positions of an index of the first axis.
    """

    shape: tuple[int, ...]
    of: Array
    whole: bool

    @property
    def size(self) -> int:
        """Number of sequences."""
        return math.prod(self.shape)


def shift_of(value: Any, shape: tuple[int, ...]) -> int:
    """Check an option ``shift`` for labels of ``shape``. Raises ``InvalidInput``, as all here."""
    shift = integer("shift", value)
    if shift and len(shape) < 2:
        raise InvalidInput(
            f"shift is {shift}, but labels of shape {shape} have no axis of positions after that "
            "of the sequences: give them shape (sequences, positions), (1, positions) for one text",
            field="shift",
        )
    if shift and abs(shift) > shape[1]:
        raise InvalidInput(
            f"shift is {shift}, but labels of shape {shape} have {shape[1]} positions in a "
            f"sequence: it must be from -{shape[1]} to {shape[1]}",
            field="shift",
        )
    return shift


def mask_of(value: Any, shape: tuple[int, ...]) -> Array:
    """Convert a tensor ``mask`` to Boolean, false where it is 0; ``shape`` is the labels'."""
    return np.asarray(_integers("mask", value, shape, "0 where a label is left out") != 0)


def segments_of(value: Any, shape: tuple[int, ...]) -> Array:
    """Check a tensor ``segments``, and convert it to int64; ``shape`` is the labels'.

    Each is an index from 0 to the number of positions in a row. Labels of one axis are one row.
    """
    array = _integers("segments", value, shape, "the number of each position's segment in its row")
    most = math.prod(shape[1:] if len(shape) > 1 else shape)
    wrong = np.argwhere((array < 0) | (array > most))
    if len(wrong):
        index = tuple(int(i) for i in wrong[0])
        raise InvalidInput(
            f"{mismatch.element('segments', index)} is {array[index]}; segments are numbered from "
            f"0 to {most}, the number of positions in a row",
            field="segments",
            position=index,
        )
    return array.astype(np.int64)


def _integers(name: str, value: Any, shape: tuple[int, ...], content: str) -> Array:
    array = np.asarray(value)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    if dtypes.of(array) not in dtypes.INTEGERS:
        raise InvalidInput(
            f"{name} must be integers{' or Boolean' if name == 'mask' else ''}, {content}, not "
            f"{array.dtype}{mismatch.dtype_advice(array, 'int64')}",
            field=name,
        )
    if array.shape != shape:
        raise InvalidInput(
            f"{name} has shape {array.shape}; it must have one element for each label, so shape "
            f"{shape}",
            field=name,
        )
    return array


def no_moves(name: str) -> InvalidInput:
    """Error of a shift or mask for labels that are class probabilities."""
    return InvalidInput(
        f"{name} is for labels that are class indices, and these are class probabilities: leave "
        "elements out by a sample_weight of 0, and move probabilities to where their logits are",
        field=name,
    )


def moved(array: Array, shift: int, absent: float) -> Array:
    """Move values along axis 1 by ``shift``; ``absent`` where none comes to lie.

    From the logits' positions to those of the labels that they score; back by ``-shift``.
    """
    if shift == 0:
        return array
    out = np.full(array.shape, absent, array.dtype)
    length = array.shape[1]
    if shift > 0:
        out[:, shift:] = array[:, : length - shift]
    else:
        out[:, : length + shift] = array[:, -shift:]
    return out


def at_logits(labels: Array, shift: int, mask: Array | None, ignore_index: int) -> Array:
    """Labels at the positions of the logits that score them, else ``ignore_index``.

    Of the labels' dtype where that holds ``ignore_index``; else int64, whose largest value stands
    for all beyond it: neither is a class.
    """
    limits = np.iinfo(labels.dtype)
    if not limits.min <= ignore_index <= limits.max:
        labels = np.minimum(labels, min(limits.max, _LARGEST)).astype(np.int64)
    if mask is not None:
        labels = np.where(mask, labels, labels.dtype.type(ignore_index))
    return moved(labels, -shift, ignore_index)


def sequences_of(shape: tuple[int, ...], segments: Array | None) -> Sequences:
    """Sequences of labels of ``shape``: those of the first axis, or the ``segments`` of each."""
    rows = shape[0] if shape else 1
    each = math.prod(shape[1:])
    if segments is None:
        return Sequences(shape[:1], np.repeat(np.arange(rows), each).reshape(shape), True)
    most = int(segments.max(initial=-1)) + 1
    if len(shape) < 2:
        return Sequences((most,), segments, False)
    firsts = (most * np.arange(rows)).reshape(rows, *[1] * (len(shape) - 1))
    return Sequences((rows, most), segments + firsts, False)


def summed(values: Array, sequences: Sequences) -> Array:
    """Sum of the ``values``, of the labels' shape, of each sequence: float64.

    They are added one after the other, in C order of the labels.
    """
    if sequences.whole and values.size:  # a tenth of bincount's time
        rows = np.empty(sequences.shape)
        sum_rows(values.reshape(-1), rows.reshape(-1))
        return rows
    sums = np.bincount(sequences.of.reshape(-1), values.reshape(-1), sequences.size)
    return sums.reshape(sequences.shape)
