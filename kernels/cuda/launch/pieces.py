"""Pieces of a problem, which go to the device one after another.

A piece is some consecutive positions with all their classes. On the device it lies in C order,
whatever the layout of the caller's array: classes last (rows), or before the positions (planes).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kernels.plan import View
from kernels.problem import Array, Problem


class Layout:
    """Layout on the device of ``problem``'s logits, probabilities, log-probabilities and gradients.

    ``rows``: the classes are neighbours. It depends on the shape and on the order in memory alone,
    since the bits depend on it.
    """

    def __init__(self, problem: Problem) -> None:
        logits, self._axis = problem.logits, problem.axis
        behind = [size for size in logits.shape[self._axis + 1 :] if size > 1]
        before = [size for size in logits.shape[: self._axis] if size > 1]
        steps = [abs(step) for step in logits.strides]
        others = [
            step for at, step in enumerate(steps) if at != self._axis and logits.shape[at] > 1
        ]
        # Classes on the last axis that lie furthest apart in memory: a piece keeps that order.
        self._turned = bool(before) and not behind and steps[self._axis] > max(others, default=0)
        self.rows = not behind and not self._turned

    def cut(self, array: Array, most: int) -> Iterator[Array]:
        """Cut ``array`` into sub-arrays in order of position, of at most ``most`` positions."""
        for part in _cut(array, self._axis, most * array.shape[self._axis]):
            yield np.moveaxis(part, self._axis, 0) if self._turned else part

    def view(self, data: Any, part: Array) -> View:
        """View of a sub-array that was copied in C order to ``data``."""
        axis = 0 if self._turned else self._axis
        classes = part.shape[axis]
        inner = math.prod(part.shape[axis + 1 :])
        return View(data, part.size // classes, classes, inner, classes * inner, 1, inner)


def _cut(array: Array, axis: int, limit: int) -> Iterator[Array]:
    sizes = array.shape
    along = next((at for at, size in enumerate(sizes) if at != axis and size > 1), None)
    if array.size <= limit or along is None:
        yield array
        return
    step = max(1, limit // (array.size // sizes[along]))
    for start in range(0, sizes[along], step):
        part = array[(slice(None),) * along + (slice(start, start + step),)]
        if step > 1 or part.size <= limit:
            yield part
        else:
            yield from _cut(part, axis, limit)
