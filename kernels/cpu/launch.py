"""From a checked problem to kernel calls: pieces, tiles, threads and their scratch."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numba
import numpy as np

from kernels import reduce
from kernels.cpu import tile
from kernels.cpu.arguments import Results, Scratch, View
from kernels.cpu.loss import cross_entropy_kernel, nll_kernel, segments_kernel
from kernels.cpu.rows import SEGMENT
from kernels.cpu.threads import run
from kernels.cpu.views import PerClass, labels_of, options_of, pieces
from kernels.dtypes import DType
from kernels.problem import Array, Problem

# Elements; waking threads takes as long as some 30,000 exponentials.
SERIAL = 32768
# Elements of a tile of rows: large enough to fill SIMD logarithms, small enough for L1.
TILE = 8192
# Positions; fewer are dealt out to threads one by one, not by blocks of the reduction.
SHARED = 1024
_KEPT = threading.local()
PER_POSITION: dict[str, Any] = {
    "losses": np.float64,
    "weights": np.float64,
    "per_element": None,
    "log_sum_exp": None,
    "entropy": None,
    "rank": np.int64,
    "prediction": np.int64,
}


class ImpossibleLabel(Exception):
    """A label is neither a class nor ignored; ``position`` is the first such one's."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


@lru_cache
def _no_results(dtype: DType) -> Results:
    """Results of which none are wanted, each of its type."""
    empty = {name: np.empty(0, kind or dtype.result) for name, kind in PER_POSITION.items()}
    return Results(blocks=np.empty((0, 2)), bad=np.empty(0, np.int64), **empty)


def _plan(view: View, shared: bool) -> tuple[int, int]:
    """``(positions a tile, workers)``.

    A tile is some blocks of the reduction, of about ``TILE`` elements, so that blocks are summed
    where their losses are; but positions that are ``shared`` are dealt out one by one.
    """
    threads = 1 if view.positions * view.classes <= SERIAL else numba.get_num_threads()
    rows = TILE // view.classes // reduce.BLOCK * reduce.BLOCK
    size = min(max(rows, reduce.BLOCK), tile.LARGEST)
    if shared and view.positions < size * threads:
        size = -(-view.positions // threads)
    return size, min(threads, -(-view.positions // size))


def _segments(view: View) -> int:
    """Segments of all rows, where threads have to share these; else 0."""
    threads = numba.get_num_threads()
    if view.class_stride != 1 or view.classes <= SEGMENT or view.positions >= threads:
        return 0
    return view.positions * -(-view.classes // SEGMENT)


def _scratch(workers: int, tile_size: int, dtype: DType) -> Scratch:
    """Room for ``workers``; a thread keeps what it needs for itself, and so for small work."""
    kept: dict[Any, Scratch] = _KEPT.__dict__
    if workers > 1:
        return _new_scratch(workers, tile_size, dtype)
    if (tile_size, dtype) not in kept:
        kept[tile_size, dtype] = _new_scratch(1, tile_size, dtype)
    return kept[tile_size, dtype]


def _new_scratch(workers: int, tile_size: int, dtype: DType) -> Scratch:
    # Positions that are ignored keep what was there: ones are harmless.
    return Scratch(
        np.empty((workers, tile_size), np.int64),
        np.ones((workers, tile.ROWS, tile_size + 2 * tile.SLACK)),
        np.empty((workers, 3, 16), dtype.result),
    )


def compute(
    problem: Problem, wanted: tuple[str, ...], upstream: float = 1.0
) -> tuple[Array, Mapping[str, Array]]:
    """The block sums of the losses (``kernels.reduce``), and the arrays of ``wanted``.

    Those are of ``PER_POSITION``, one-dimensional, or of ``views.PER_CLASS``, of the logits'
    shape. ``upstream`` is the derivative of what is wanted the gradient of by each loss. Raises
    ``ImpossibleLabel``.
    """
    dtype, positions = problem.dtype, problem.positions
    per_class = PerClass(problem, wanted)
    shared = positions < SHARED and problem.logits.size > SERIAL
    arrays = {
        name: np.empty(positions, kind or dtype.result)
        for name, kind in PER_POSITION.items()
        if name in wanted or (shared and name in ("losses", "weights"))
    }
    options = options_of(problem, wanted, upstream)
    kernel = nll_kernel if problem.normalised else cross_entropy_kernel
    blocks = np.empty((-(-positions // reduce.BLOCK), 2))
    for first, logits, soft in pieces(problem, per_class.in_place):
        stop = first + logits.positions
        size, workers = _plan(logits, shared)
        results = _no_results(dtype)._replace(
            blocks=blocks[first // reduce.BLOCK :],
            bad=np.full(workers, logits.positions),
            **{name: array[first:stop] for name, array in arrays.items()},
        )
        key = (logits.data.dtype, soft.data.dtype, options.cap is None)
        segments = 0 if problem.normalised else _segments(logits)
        if segments:
            options = options._replace(segments=np.empty((segments, 2)))
        arguments = (
            size,
            logits,
            soft,
            labels_of(problem, first, logits.positions),
            options,
            results,
            *per_class.views(first, logits),
            _scratch(workers, size, dtype),
        )
        if segments:
            threads = min(numba.get_num_threads(), segments)
            run(segments_kernel, key, threads, *arguments)
        run(kernel, key, workers, *arguments)
        wrong = min(results.bad.tolist())
        if wrong < logits.positions:
            raise ImpossibleLabel(first + wrong)
    if shared:
        blocks = reduce.sum_all_blocks(np.stack([arrays["losses"], arrays["weights"]]))
    return blocks, {**arrays, **per_class.arrays()}
