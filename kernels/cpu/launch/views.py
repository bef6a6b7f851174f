"""Views and labels for kernels, from the tensors of a checked problem."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from kernels import layout, reduce
from kernels.cpu.arguments import Labels, Likeliest
from kernels.cpu.launch.scratch import apart
from kernels.cpu.likeliest.top import KEYS, TESTED
from kernels.cpu.sums.maxima import BLOCK, GROUP
from kernels.divergence import Divergence
from kernels.plan import LIKELIEST, MOST_TOP, PER_CLASS, PER_TOP, TOP, View
from kernels.problem import Array, Problem

# Elements in a copied chunk of a layout that kernels cannot walk: enough work for all threads.
CHUNK = 1 << 20
# Plane kernels count classes in float32 lanes, exactly below this.
MOST_PLANES = 2**24


def view_of(array: Array, axis: int) -> View | None:
    """View of ``array`` without a copy, or None where kernels cannot walk it."""
    view = layout.strided(array, axis)
    if view is None or (view.class_stride != 1 and view.classes >= MOST_PLANES):
        return None
    return view


def row_view(rows: Array) -> View:
    """View of ``rows``, a contiguous array of shape (positions, classes)."""
    positions, classes = rows.shape
    return View(rows.reshape(-1), positions, classes, 1, classes, 0, 1)


@lru_cache  # made anew it takes 2 us, of a small loss's 25
def no_view(dtype: np.dtype[Any]) -> View:
    """Empty view, typed as one of ``dtype``."""
    return row_view(np.empty((0, 1), dtype))


class PerClass:
    """Outputs with a value a class: their arrays, and their views for a piece of logits.

    ``in_place``: they lie in memory as the logits do, and kernels walk both alike; else the pieces
    of logits are copies with the classes last, and so are these arrays.
    """

    def __init__(self, problem: Problem, wanted: tuple[str, ...]) -> None:
        self._axis = problem.axis
        self._dtype = problem.dtype.result
        self._shape = (*problem.shape, problem.classes)
        self._arrays: dict[str, Array] = {
            name: problem.out[name]
            if name in problem.out
            else np.empty_like(problem.logits, dtype=self._dtype)
            for name in PER_CLASS
            if name in wanted
        }
        self.in_place = _in_place(problem, *self._arrays.values())
        if not self.in_place:
            self._arrays = {name: rows_for(problem, name) for name in self._arrays}

    def views(self, first: int, logits: View) -> tuple[View, View]:
        """Views of ``PER_CLASS``, in this order, for the ``logits`` from position ``first`` on."""
        log_probs, gradient = [
            no_view(self._dtype) if array is None else self._view(array, first, logits)
            for array in map(self._arrays.get, PER_CLASS)
        ]
        return log_probs, gradient

    def _view(self, array: Array, first: int, logits: View) -> View:
        if not self.in_place:
            return row_view(array[first : first + logits.positions])
        view = view_of(array, self._axis)
        assert view is not None
        return view

    def arrays(self) -> Mapping[str, Array]:
        """Outputs by name, each of the logits' shape."""
        if self.in_place:
            return self._arrays
        return {
            name: np.moveaxis(array.reshape(self._shape), -1, self._axis)
            for name, array in self._arrays.items()
        }


def rows_for(problem: Problem | Divergence, name: str) -> Array:
    """Array of shape (positions, classes) for an output, of the memory that the caller gave."""
    shape = problem.positions, problem.classes
    if name in problem.out:
        return np.moveaxis(problem.out[name], problem.axis, -1).reshape(shape)
    return np.empty(shape, problem.dtype.result)


def classes_last(problem: Problem | Divergence) -> bool:
    """Return True where outputs with a value a class are written position by position."""
    if isinstance(problem, Divergence) or problem.binary:
        return True
    return not _in_place(problem, np.empty_like(problem.logits, dtype=problem.dtype.result))


def fits(problem: Problem | Divergence, array: Array) -> bool:
    """Return True if kernels can write such an output to ``array``, which is of its shape."""
    if isinstance(problem, Divergence) or classes_last(problem):
        return array.flags.aligned and np.moveaxis(array, problem.axis, -1).flags.c_contiguous
    return _in_place(problem, array) and layout.distinct(array)


def _in_place(problem: Problem, *arrays: Array) -> bool:
    """Return True if one walk fits the logits, class probabilities and ``arrays``."""
    others = arrays if problem.soft is None else (problem.soft, *arrays)
    if not others:
        return True
    logits = view_of(problem.logits, problem.axis)
    return all(_alike(logits, view_of(array, problem.axis)) for array in others)


class LikeliestArrays:
    """Outputs about the likeliest classes, and the memory that finding them takes."""

    def __init__(self, problem: Problem, wanted: tuple[str, ...]) -> None:
        self._problem = problem
        self._arrays = {
            name: np.empty(
                problem.positions * problem.values_each(name), dtype or problem.dtype.result
            )
            for name, dtype in LIKELIEST.items()
            if name in wanted
        }

    def arguments(self, first: int, logits: View, workers: int) -> Likeliest | None:
        """Those of a kernel for ``logits`` from position ``first`` on; None if none is wanted."""
        if not self._arrays:
            return None
        problem, real = self._problem, self._problem.dtype.result
        chosen = np.empty((0, 0), np.int64) if problem.chosen is None else problem.chosen
        outputs = {}
        for name, dtype in LIKELIEST.items():
            each = problem.values_each(name)
            array = self._arrays.get(name, np.empty(0, dtype or real))
            outputs[name] = array[first * each : (first + logits.positions) * each]
        width = 64 // real.itemsize
        # Strided classes are gathered in the type that they are computed in.
        size = problem.dtype.size if logits.class_stride == 1 else real.itemsize
        top_k = (problem.top_k or 0) if {*TOP} & self._arrays.keys() else 0
        groups, blocks = -(-problem.classes * size // GROUP), -(-problem.classes // BLOCK)
        return Likeliest(
            top_k=top_k,
            compares=bool(self._arrays.keys() - {"chosen_log_probs"}),
            chosen_each=chosen.shape[1],
            chosen=(
                chosen[first : first + logits.positions] if len(chosen) > 1 else chosen
            ).ravel(),
            **outputs,
            maxima=apart(workers, 1, (groups + blocks) * width, real)[:, 0],
            row=np.empty((workers, 0 if logits.class_stride == 1 else problem.classes), real),
            marks=np.empty((workers, groups + TESTED), np.uint32),
            keys=np.empty((workers, KEYS), np.int64),
            ranks=np.empty((workers, KEYS), np.int64),
            values=apart(workers, 1, MOST_TOP + width, real)[:, 0],
            places=np.empty((workers, MOST_TOP + 1), np.int64),  # ``top`` writes one more
        )

    def arrays(self) -> Mapping[str, Array]:
        """Outputs by name, with the labels' shape, and a last axis for several values."""
        problem = self._problem
        return {
            name: array.reshape((*problem.shape, problem.values_each(name)))
            if name in PER_TOP
            else array
            for name, array in self._arrays.items()
        }


def _alike(logits: View | None, other: View | None) -> bool:
    """Return True if one walk fits both: the same positions, and the same neighbours."""
    return (
        logits is not None
        and other is not None
        and logits.inner_size == other.inner_size
        and (logits.class_stride == 1) == (other.class_stride == 1)
    )


def pieces(problem: Problem, in_place: bool) -> Iterator[tuple[int, View, View]]:
    """Yield ``(first position, logits, soft)`` for each piece of the problem.

    Unless the logits can be read ``in_place``, chunks of them are copied, with the classes last.
    """
    if problem.logits.size == 0:
        return
    nothing = no_view(problem.dtype.load)
    logits = view_of(problem.logits, problem.axis) if in_place else None
    if logits is not None:
        soft = nothing if problem.soft is None else view_of(problem.soft, problem.axis)
        assert soft is not None
        yield 0, logits, soft
        return
    first, classes = 0, problem.classes
    rows = max(1, CHUNK // classes // reduce.BLOCK) * reduce.BLOCK
    softs = None if problem.soft is None else layout.chunks(problem.soft, problem.axis, rows)
    for piece in layout.chunks(problem.logits, problem.axis, rows):
        yield first, row_view(piece), nothing if softs is None else row_view(next(softs))
        first += len(piece)


NO_LABELS = Labels(
    int8s=np.empty(0, np.int8),
    int16s=np.empty(0, np.int16),
    int32s=np.empty(0, np.int32),
    int64s=np.empty(0, np.int64),
    given=0,
    mask=-1,
    ignores=False,
    ignore_index=-1,
    sample_weight=np.empty(0),
)


def labels_of(problem: Problem, first: int, count: int) -> Labels:
    """Labels of ``count`` positions from ``first`` on, for kernels."""
    changes: dict[str, Any] = {"ignore_index": problem.ignore_index}
    if problem.sample_weight is not None:
        changes["sample_weight"] = problem.sample_weight[first : first + count]
    if problem.labels is not None:
        labels = problem.labels[first : first + count]
        bits, unsigned = 8 * labels.itemsize, labels.dtype.kind == "u"
        lowest, highest = (
            (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        )
        changes |= integers(labels)
        changes["ignores"] = lowest <= problem.ignore_index <= highest
    return NO_LABELS._replace(**changes)


def integers(values: Array) -> dict[str, Any]:
    """Fields of ``Labels`` for one-dimensional integers or Booleans."""
    size = values.itemsize
    unsigned = values.dtype.kind == "u" and size < 8
    return {
        f"int{8 * size}s": layout.readable(values.view(f"<i{size}")),
        "given": values.size,
        "mask": 2 ** (8 * size) - 1 if unsigned else -1,
    }
