"""Pieces of the positions of a problem: as many logits at a time as stay in cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kernels.problem import Problem

Array = np.ndarray[Any, Any]

# Bytes of logits in a step, which are read from cache the second time; and steps in a piece, where
# they are read once: NumPy takes as long for a piece as the kernel for one or two steps.
STEP, STEPS = 1 << 22, 4
# Positions in a piece, at most and, where classes are strided, at least; a multiple of the sums'
# blocks. NumPy takes some 200 bytes for each; arrays of 128 KiB and more have new pages each time,
# which takes five times as long as to compute them.
MOST, _LEAST = 1 << 13, 64


class Piece(NamedTuple):
    """Neighbouring positions: those from ``first`` to ``stop``, whose ``logits`` have their classes
    on ``axis``; up to byte ``reach`` of all logits has to be there.

    ``each``: bytes from one position to the next, 0 where they are not in order.
    """

    first: int
    stop: int
    logits: Array
    axis: int
    reach: int
    each: int = 0

    def reach_of(self, positions: int) -> int:
        """Byte up to which all logits have to be there for the first ``positions`` of these."""
        return self.reach - (self.stop - self.first - positions) * self.each

    def by_class(self) -> Array:
        """View of the logits with the classes last."""
        others = [axis for axis in range(self.logits.ndim) if axis != self.axis]
        return self.logits.transpose(*others, self.axis)  # np.moveaxis takes ten times as long

    def at(self, positions: Array) -> tuple[Array, ...]:
        """Indices in ``by_class`` of ``positions``, counted from 0 in this piece."""
        shape = self.by_class().shape[:-1]
        if shape[1:] == (1,):  # as most pieces have it: a tenth of the time
            return positions, np.zeros_like(positions)
        return tuple(np.unravel_index(positions, shape)) if shape else ()


def _ordered(problem: Problem) -> tuple[int, int, int] | None:
    """Extents before, on and behind the class axis; None where memory is not in order."""
    shape, axis = problem.logits.shape, problem.axis
    if not problem.logits.flags.c_contiguous or not problem.logits.size:
        return None
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def window(problem: Problem, step: int | None) -> int | None:
    """Bytes of logits, before ``Piece.reach``, that a piece may be read from; None: all of them."""
    extents = _ordered(problem)
    if step is None or extents is None or problem.device != "cpu":
        return None
    outer, classes, inner = extents
    each = classes * inner * problem.logits.itemsize
    return each * max(1, min(step // each, outer))


def pieces(problem: Problem, step: int) -> Iterator[Piece]:
    """Pieces of the positions, in order, each of about ``step`` bytes of logits."""
    logits, axis, extents = problem.logits, problem.axis, _ordered(problem)
    size = logits.itemsize
    if not logits.size:
        return
    if extents is None:
        yield from _slices(logits, axis, step)
        return
    outer, classes, inner = extents
    whole, each = logits.reshape(extents), classes * inner * size
    many = max(1, min(step // each, MOST // inner))
    if many > 1 or (each <= step and inner <= MOST) or inner == 1:
        for first in range(0, outer, many):
            stop = min(first + many, outer)
            apart = each if inner == 1 else 0
            yield Piece(first * inner, stop * inner, whole[first:stop], 1, stop * each, apart)
        return
    some = min(max(step // (classes * size) // _LEAST * _LEAST, _LEAST), MOST)
    for one in range(outer):
        for first in range(0, inner, some):
            stop = min(first + some, inner)
            part = whole[one : one + 1, :, first:stop]
            yield Piece(one * inner + first, one * inner + stop, part, 1, (one + 1) * each)


def _slices(logits: Array, axis: int, step: int) -> Iterator[Piece]:
    """Pieces of logits that are not in order in memory: slices of their first axis of positions."""
    if logits.ndim == 1:
        yield Piece(0, 1, logits, 0, logits.nbytes)
        return
    along = 1 if axis == 0 else 0
    length = logits.shape[along]
    positions = logits.size // logits.shape[axis] // length
    many = max(1, min(step * length // logits.nbytes, MOST // positions))
    for first in range(0, length, many):
        stop = min(first + many, length)
        part = logits[(slice(None),) * along + (slice(first, stop),)]
        yield Piece(first * positions, stop * positions, part, axis, logits.nbytes)
