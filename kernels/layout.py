"""Layout of an array in memory, as positions of classes that a kernel can walk.

A kernel reads one contiguous run of memory, in which either the classes or the positions after the
class axis are neighbours. Other arrays (a slice with a step, transposed outer axes) are copied into
order in chunks, never whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from kernels.plan import Array, View


class _Memory:
    """Array interface of ``size`` elements in one dimension, from ``array``'s first on."""

    def __init__(self, array: Array, size: int) -> None:
        self.array = array
        self.__array_interface__ = {
            "version": 3,
            "shape": (size,),
            "typestr": array.dtype.str,
            "data": (array.__array_interface__["data"][0], False),
        }


def readable(array: Array, size: int | None = None) -> Array:
    """View of ``size`` elements of ``array``'s memory (all, if None) of the type kernels take.

    That is one-dimensional, contiguous and writable: to Numba a read-only array is another type,
    and would be compiled for again. Kernels never write to their inputs.
    """
    if size is None and array.flags.writeable:
        return array
    return np.asarray(_Memory(array, array.size if size is None else size))


def _merged(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int] | None:
    """``(size, stride)`` of some axes merged into one, or None where they have no common stride."""
    size, stride = 1, 1
    for length, step in reversed(list(zip(shape, strides, strict=True))):
        if length == 1:
            continue
        if size == 1:
            stride = step
        elif step != size * stride:
            return None
        size *= length
    return size, stride


def strided(array: Array, axis: int) -> View | None:
    """View of ``array`` for kernels, without a copy; None where it has to be copied.

    ``array`` is not empty, and of a dtype of ``DType.load``.
    """
    if not array.flags.aligned:
        return None
    classes = array.shape[axis]
    if array.flags.c_contiguous:
        inner_size = math.prod(array.shape[axis + 1 :])
        positions, outer_stride = math.prod(array.shape[:axis]) * inner_size, classes * inner_size
        data = readable(array.reshape(-1))
        return View(data, positions, classes, inner_size, outer_stride, 1, inner_size)
    steps = tuple(step // array.itemsize for step in array.strides)
    if any(step < 0 for step in steps) or any(step % array.itemsize for step in array.strides):
        return None
    outer = _merged(array.shape[:axis], steps[:axis])
    inner = _merged(array.shape[axis + 1 :], steps[axis + 1 :])
    if outer is None or inner is None:
        return None
    class_stride = steps[axis]
    if inner[0] == 1 and outer[1] == 1:
        outer, inner = (1, 0), outer
    if classes == 1 or (inner[0] == 1 and class_stride == 1):
        class_stride = 1
    elif inner[1] != 1 and class_stride != 1:
        return None
    last = sum((length - 1) * step for length, step in zip(array.shape, steps, strict=True))
    data, positions = readable(array, last + 1), outer[0] * inner[0]
    return View(data, positions, classes, inner[0], outer[1], inner[1], class_stride)


def distinct(array: Array) -> bool:
    """Return True if no two elements share memory, as those of a broadcast array do."""
    reach = array.itemsize
    for step, length in sorted(zip(map(abs, array.strides), array.shape, strict=True)):
        if length > 1 and step < reach:
            return False
        reach += step * (length - 1)
    return True


def chunks(array: Array, axis: int, rows: int) -> Iterator[Array]:
    """Copy ``array`` in pieces of shape (``rows``, classes), in order of position.

    The last is shorter. Each piece overwrites the one before.
    """
    moved = np.moveaxis(array, axis, -1)
    piece = np.empty((rows, moved.shape[-1]), array.dtype)
    filled = 0
    for part in _blocks(moved, piece.size):
        done = 0
        flat = part.reshape(-1, moved.shape[-1])
        while done < len(flat):
            count = min(rows - filled, len(flat) - done)
            piece[filled : filled + count] = flat[done : done + count]
            filled, done = filled + count, done + count
            if filled == rows:
                yield piece
                filled = 0
    if filled:
        yield piece[:filled]


def _blocks(moved: Array, limit: int) -> Iterator[Array]:
    """Yield sub-arrays of ``moved`` of at most ``limit`` elements, or of one row of classes."""
    if moved.ndim == 1 or moved.size <= limit:
        yield moved
        return
    step = max(1, limit // (moved.size // len(moved)))
    for start in range(0, len(moved), step):
        if step > 1:
            yield moved[start : start + step]
        else:
            yield from _blocks(moved[start], limit)
