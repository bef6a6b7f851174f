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
from kernels.cpu.loss import cross_entropy_kernel, nll_kernel
from kernels.cpu.threads import run
from kernels.cpu.views import PerClass, labels_of, options_of, pieces
from kernels.dtypes import DType
from kernels.problem import Array, Problem

# Elements; waking threads takes as long as some 30,000 exponentials.
SERIAL = 32768
# Elements of a tile of rows: large enough to fill SIMD logarithms, small enough for L1.
TILE = 8192
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


def _tile_size(view: View) -> int:
    """Positions a tile: whole blocks of the reduction, of about ``TILE`` elements."""
    rows = TILE // view.classes // reduce.BLOCK * reduce.BLOCK
    return min(max(rows, reduce.BLOCK), tile.LARGEST)


def _workers(view: View, tile_size: int) -> int:
    if view.positions * view.classes <= SERIAL:
        return 1
    return min(numba.get_num_threads(), -(-view.positions // tile_size))


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
    arrays = {
        name: np.empty(positions, kind or dtype.result)
        for name, kind in PER_POSITION.items()
        if name in wanted
    }
    options = options_of(problem, wanted, upstream)
    kernel = nll_kernel if problem.normalised else cross_entropy_kernel
    blocks = np.empty((-(-positions // reduce.BLOCK), 2))
    for first, logits, soft in pieces(problem, per_class.as_logits):
        stop, size = first + logits.positions, _tile_size(logits)
        workers = _workers(logits, size)
        results = _no_results(dtype)._replace(
            blocks=blocks[first // reduce.BLOCK :],
            bad=np.full(workers, logits.positions),
            **{name: array[first:stop] for name, array in arrays.items()},
        )
        run(
            kernel,
            (logits.data.dtype, soft.data.dtype, options.cap is None),
            workers,
            size,
            logits,
            soft,
            labels_of(problem, first, logits.positions),
            options,
            results,
            *per_class.views(first, logits),
            _scratch(workers, size, dtype),
        )
        wrong = min(results.bad.tolist())
        if wrong < logits.positions:
            raise ImpossibleLabel(first + wrong)
    return blocks, {**arrays, **per_class.arrays()}
