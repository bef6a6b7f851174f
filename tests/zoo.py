"""Odd arrays: what logits look like when something is the matter with them, and the ways one
array can lie in memory. Fixtures in ``conftest.py`` run a test over all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from kernels import OUTPUTS, dtypes
from kernels.dtypes import FLOAT16, FLOAT32, FLOAT64, FLOATS
from kernels.plan import LIKELIEST, TABLE, Kind

Array = np.ndarray[Any, Any]

# Classes at which a kernel's loop changes block, vector or index width.
SEAMS = (0, 63, 64, 1023, 1024, 2047, 2048, 4095, 4096, 8191, 8192, 32767, 32768, 65535, 65536)

# A softcap, and outputs of the likeliest classes, are specialisations of their own for each type of
# logits, which take 12 to 20 s to compile. The tests have those of these types, unless
# LOSSD_KERNELS=all (``make test-all``), or on the simulator, which compiles none. The narrow types
# differ from float32 in how they are loaded alone, which other tests have for each of them.
EVERY = os.environ.get("LOSSD_KERNELS") == "all" or os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
WITH_SOFTCAP = FLOATS if EVERY else (FLOAT32, FLOAT64)
WITH_LIKELIEST = FLOATS if EVERY else (FLOAT32, FLOAT64, FLOAT16)
WITH_BOTH = FLOATS if EVERY else (FLOAT32,)


def compiled(names: Iterable[str], dtype: dtypes.DType, *, capped: bool = False) -> list[str]:
    """Those of the outputs ``names`` whose kernel for ``dtype`` the tests have; ``capped``: with
    a softcap.
    """
    kept = dtype in (WITH_BOTH if capped else WITH_LIKELIEST)
    return [name for name in names if kept or name not in LIKELIEST]


def outputs(soft: bool = False) -> list[str]:
    """Outputs that need no option or tensor of their own, for labels of one kind."""
    rows = ((name, TABLE[name]) for name in OUTPUTS)
    return [name for name, row in rows if row.requires is None and (row.soft or not soft)]


def each_alone() -> list[str]:
    """Outputs of ``outputs`` that a position has by itself, whatever its neighbours are."""
    return [name for name in outputs() if TABLE[name].kind in (Kind.POSITION, Kind.CLASS)]


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


# Where the kernels' loops over contiguous classes end a guess, a block or a segment.
EDGES = (0, 1, 15, 16, 63, 64, 65, 4095, 4096, 4097, 65535, 65536, 65537, 131071, 131072)


def adversarial(classes: int) -> Iterator[tuple[str, Array]]:
    """Named rows that are hard on a one-pass softmax, which guesses its shift from a row's first
    classes and moves it when a block has grown too far.
    """
    noise = np.random.default_rng(classes).normal(0, 1, classes)
    ramp = np.linspace(0, 1, classes)
    place = np.arange(classes)
    yield "growing", 300 * ramp
    yield "shrinking", -300 * ramp
    yield "growing slowly", 12 * ramp  # never enough in one block to be noticed
    yield "growing in steps", 11.0 * (place // 4096) + noise
    yield "shrinking in steps", -11.0 * (place // 4096) + noise
    yield "growing from far below", -1e4 + 2e4 * ramp
    yield "alternating", np.where(place % 2, 1e4, -1e4)
    yield "alternating blocks", np.where(place // 4096 % 2, 60.0, -60.0) + noise
    yield "alternating segments", np.where(place // 65536 % 2, 1e4, -1e4) + noise
    yield "all below -1e30", -1e30 * (1 + ramp)
    yield "all far below", -3e38 * (1 - ramp / 8)
    yield "denormal", noise * 1e-40
    yield "one lane alone", np.where(place % 16 == 5, 20.0, -20.0) + noise
    for masked in (-np.inf, -1e9, float(np.finfo(np.float32).min)):
        for count in (1, 4, 64, 4096, 65536):
            if count < classes:
                yield f"first {count} are {masked:.3g}", np.where(place < count, masked, noise)
        yield f"all but the last are {masked:.3g}", np.where(place < classes - 1, masked, noise)
    for edge in {*EDGES, classes - 1}:
        if edge < classes:
            for height in (19.0, 1e4):
                yield f"{height:g} at {edge}", np.where(place == edge, height, noise)


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


class Example(NamedTuple):
    """Arguments of ``cross_entropy``, for the kernels and for the oracle alike."""

    logits: Array
    labels: Array
    options: dict[str, Any]

    def lying(self, layout: Callable[[Array], Array]) -> Example:
        """The same with every array in ``layout``."""
        options = {
            name: layout(value) if isinstance(value, np.ndarray) else value
            for name, value in self.options.items()
        }
        return Example(layout(self.logits), layout(self.labels), options)

    def outputs(self) -> list[str]:
        """Outputs of ``zoo.outputs`` for these labels, where the tests have their kernel."""
        dtype = dtypes.of(self.logits)
        assert dtype is not None
        names = outputs(soft=self.labels.dtype.kind not in "iu")
        return compiled(names, dtype, capped="softcap" in self.options)

    def softened(self) -> float:
        """Error of a logit for one unit of error in its softcap's tanh, at least 1."""
        cap = self.options.get("softcap") or 0.0
        return max(1.0, float(cap)) / min(1.0, float(self.options.get("temperature", 1.0)))


# Each option alone, then all of them: the tensors among them are made to measure by ``example``.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight": {"weight": ...},
    "label_smoothing": {"label_smoothing": 0.2},
    "temperature": {"temperature": 0.6},
    "softcap": {"softcap": 3.0},
    "z_loss": {"z_loss": 0.01},
    "sample_weight": {"sample_weight": ...},
}
OPTIONS["all"] = {name: value for row in OPTIONS.values() for name, value in row.items()}


def example(
    shape: tuple[int, ...], axis: int, dtype: dtypes.DType, options: str, *, soft: bool = False
) -> Example:
    """Seeded logits, labels (a fifth ignored) and ``OPTIONS``; of many weights some are 0.

    All options have a softcap for the types ``WITH_SOFTCAP`` alone.
    """
    axis %= len(shape)
    rng = np.random.default_rng([*shape, axis])
    positions = tuple(int(size) for size in np.delete(shape, axis))
    logits = cast(rng.normal(0, 3, shape), dtype)
    labels: Array = rng.integers(0, shape[axis], positions)
    labels[rng.random(positions) < 0.2] = -100
    if soft:
        shares = rng.random(shape) * (rng.random(shape) < 0.7)
        shares = np.where(shares.any(axis, keepdims=True), shares, 1.0)
        labels = cast(shares / shares.sum(axis, keepdims=True), dtype)
    values = dict(OPTIONS[options])
    if options == "all" and dtype not in WITH_SOFTCAP:
        del values["softcap"]
    for name, size in (("weight", (shape[axis],)), ("sample_weight", positions)):
        if name in values:
            least = 0.0 if min(np.prod(size), np.prod(positions)) > 16 else 0.125
            values[name] = cast(rng.choice([least, 0.25, 0.5, 1, 2], size), dtype)
    return Example(logits, labels, values | {"class_axis": axis})
