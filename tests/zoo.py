"""Odd arrays: what logits look like when something is the matter with them, and the ways one
array can lie in memory. Fixtures in ``conftest.py`` run a test over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from kernels import dtypes

Array = np.ndarray[Any, Any]

# Classes at which a kernel's loop changes block, vector or index width.
SEAMS = (0, 63, 64, 1023, 1024, 2047, 2048, 4095, 4096, 8191, 8192, 32767, 32768, 65535, 65536)


def cast(values: Array, dtype: dtypes.DType) -> Array:
    """``values`` rounded to ``dtype``, in its carrier; what is finite stays finite."""
    if dtype is not dtypes.BFLOAT16 and dtype not in dtypes.FLOATS:
        return values.astype(dtype.numpy)
    target = np.dtype(ml_dtypes.bfloat16) if dtype is dtypes.BFLOAT16 else dtype.numpy
    largest = float(ml_dtypes.finfo(target).max)  # type: ignore[no-untyped-call]
    wide = values.astype(np.float64)
    kept = np.where(np.isfinite(wide), np.clip(wide, -largest, largest), wide)
    return kept.astype(target).view(dtype.numpy)


def _spikes(classes: int) -> Array:
    """One row a seam, each with a spike on it, over noise that must not be lost."""
    rows = [seam for seam in SEAMS if seam < classes] + [classes - 1]
    logits = np.random.default_rng(classes).normal(0, 1, (len(rows), classes))
    logits[np.arange(len(rows)), rows] = 40
    return logits


def _masked(share: float) -> Array:
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 3, (9, 131))
    logits[rng.random(logits.shape) < share] = -np.inf
    logits[:, 70] = 0
    return logits


def _with(value: float) -> Array:
    """``value`` in some rows, at the start, middle and end; the rows between stay clean."""
    logits = np.random.default_rng(8).normal(0, 3, (7, 97))
    logits[[1, 3, 5], [0, 50, 96]] = value
    return logits


def _noise(rows: int, classes: int, scale: float = 3.0, offset: float = 0.0) -> Array:
    return np.random.default_rng(classes).normal(offset, scale, (rows, classes))


_RAMP = np.linspace(-300, 300, 700) * np.array([[1.0], [0.1], [10.0]])

# (rows, classes) in float64. Each row is one way to be hard on a one-pass softmax.
ROWS: dict[str, Array] = {
    "noise": _noise(5, 33),
    "half_masked": _masked(0.5),
    "nearly_all_masked": _masked(0.99),
    "all_masked": np.vstack([np.full((1, 40), -np.inf), _noise(2, 40)]),
    "growing": _RAMP,
    "shrinking": -_RAMP,
    "late": np.where(np.arange(300) < 200, -1e4, _noise(3, 300)),
    "early": np.where(np.arange(300) < 10, 1e4, _noise(3, 300)),
    "far_up": _noise(4, 129, offset=1e4),
    "far_down": _noise(4, 129, offset=-1e4),
    "far_apart": _noise(4, 129, scale=1e4),
    "below_-1e30": -1e30 * (1 + np.random.default_rng(1).random((3, 65))),
    "around_3e38": 3e38 * np.sign(_noise(3, 66)),
    "denormal": _noise(3, 34, scale=1e-40),
    "signed_zeros": np.where(_noise(3, 18) > 0, 0.0, -0.0),
    "nan": _with(np.nan),
    "plus_inf": _with(np.inf),
    "minus_inf": _with(-np.inf),
    "one_class": _noise(4, 1),
    "two_classes": _noise(1001, 2),
    "five_thousand": _spikes(5000),
    "seventy_thousand": _spikes(70000)[-5:],
    "equal": np.full((2, 9973), 1.5),
}


def _along_every_axis(array: Array, step: slice) -> tuple[Any, ...]:
    return (..., *(step for _ in array.shape))  # the ellipsis keeps a 0-d array an array


def _strided(array: Array) -> Array:
    """Every second element of something twice as large along every axis."""
    holder = np.zeros([2 * size for size in array.shape], array.dtype)
    view: Array = holder[_along_every_axis(array, slice(None, None, 2))]
    view[...] = array
    return view


def _window(array: Array) -> Array:
    """The inside of something larger: rows are whole, but not next to each other."""
    holder = np.zeros([size + 3 for size in array.shape], array.dtype)
    view: Array = holder[_along_every_axis(array, slice(1, -2))]
    view[...] = array
    return view


def _reversed(array: Array) -> Array:
    """Negative strides along every axis."""
    flip = _along_every_axis(array, slice(None, None, -1))
    return np.asarray(array[flip].copy(order="C")[flip])


def _rolled(array: Array) -> Array:
    """Axes permuted in memory: the last one is outermost."""
    if array.ndim < 2:
        return array
    return np.moveaxis(np.array(np.moveaxis(array, -1, 0), order="C"), 0, -1)


def _misaligned(array: Array) -> Array:
    """Whole, but from an odd address on."""
    holder = np.zeros(array.nbytes + 1, np.uint8)
    view = holder[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _column(array: Array) -> Array:
    """One field of a packed record: the stride is no multiple of the element."""
    holder = np.zeros(array.shape, [("before", np.uint8), ("it", array.dtype)])
    view = holder["it"]
    view[...] = array
    return view


def _read_only(array: Array) -> Array:
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    return copy


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "whole": lambda array: np.array(array, order="C"),
    "fortran": lambda array: np.array(array, order="F"),
    "rolled": _rolled,
    "strided": _strided,
    "window": _window,
    "reversed": _reversed,
    "misaligned": _misaligned,
    "column": _column,
    "read_only": _read_only,
}
