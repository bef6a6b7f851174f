"""Checks of the classes that a call asks for: the likeliest ones, and chosen ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import dtypes, mismatch
from kernels.errors import InvalidInput
from kernels.plan import MOST_TOP, Array
from kernels.scalars import integer


def checked_top_k(top_k: Any, classes: int) -> int:
    """Number of likeliest classes to return of each position. Raises ``InvalidInput``."""
    most = min(MOST_TOP, classes)
    top_k = integer("top_k", top_k)
    if not 1 <= top_k <= most:
        limit = f"there are {classes} classes" if most == classes else f"at most {most} are found"
        raise InvalidInput(
            f"top_k is {top_k}, and {limit}: it must be from 1 to {most}", field="top_k"
        )
    return top_k


def checked_classes(value: Any, logits: tuple[int, ...], axis: int) -> Array:
    """Copy classes, (K) or the labels' shape and K, to int64; all are in range.

    A copy, since a client may write to shared memory after the check.
    """
    array, shape = np.asarray(value), mismatch.without(logits, axis)
    if dtypes.of(array) not in dtypes.INTEGERS:
        raise InvalidInput(
            f"chosen are class indices and must be integers, not {array.dtype}", field="chosen"
        )
    if array.ndim == 0 or (array.ndim > 1 and array.shape[:-1] != shape) or array.shape[-1] == 0:
        each = ", ".join([*map(str, shape), "K"])
        raise InvalidInput(
            f"chosen has shape {array.shape}; it must be (K), the same classes for all elements, or"
            f" ({each}), K classes of each",
            field="chosen",
        )
    classes = np.array(array, np.int64, order="C")
    wrong = np.argwhere((classes < 0) | (classes >= logits[axis]))
    if array.dtype == np.uint64 and not len(wrong):
        wrong = np.argwhere(array >= logits[axis])
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        raise InvalidInput(
            f"{mismatch.element('chosen', at)} is {array[at]}; with {logits[axis]} classes it must"
            f" be from 0 to {logits[axis] - 1}",
            field="chosen",
            position=at,
        )
    return classes.reshape(-1, classes.shape[-1])
