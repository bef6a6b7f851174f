"""From a checked problem to kernel calls: pieces, tiles, threads and their scratch."""

from __future__ import annotations

import math

import numba
import numpy as np

from kernels import layout, reduce
from kernels.cpu import tile
from kernels.cpu.arguments import Results, Scratch, View
from kernels.cpu.classwise import classwise_kernel
from kernels.cpu.loss import cross_entropy_kernel, nll_kernel
from kernels.cpu.threads import run
from kernels.cpu.views import (
    chunk_rows,
    labels_of,
    no_labels,
    no_view,
    options_of,
    pieces,
    plain_options,
    row_view,
    view_of,
)
from kernels.dtypes import DType
from kernels.problem import Array, Problem

# Elements; waking threads takes as long as some 30,000 exponentials.
SERIAL = 32768
# Elements of a tile of rows: large enough to fill SIMD logarithms, small enough for L1.
TILE = 8192


def _tile_size(view: View, multiple: int) -> int:
    """Positions a tile, a multiple of ``multiple``, which divides ``tile.LARGEST``."""
    rows = TILE // view.classes // multiple * multiple
    return min(max(rows, multiple), tile.LARGEST)


def _workers(view: View, tile_size: int) -> int:
    if view.positions * view.classes <= SERIAL:
        return 1
    return min(numba.get_num_threads(), -(-view.positions // tile_size))


def _scratch(workers: int, tile_size: int, dtype: DType) -> Scratch:
    # Positions that are ignored keep what was there: ones are harmless.
    return Scratch(
        np.empty((workers, tile_size), np.int64),
        np.ones((workers, tile.ROWS, tile_size + 2 * tile.SLACK)),
        np.empty((workers, 3, 16), dtype.result),
    )


def run_loss(problem: Problem, per_element: Array) -> tuple[Array, int | None]:
    """Computes the loss: ``(block sums, first position with an impossible label or None)``.

    Fills ``per_element``, one-dimensional and of the problem's positions, or empty.
    """
    options, dtype = options_of(problem), problem.dtype
    kernel = nll_kernel if problem.normalised else cross_entropy_kernel
    blocks = np.empty((-(-problem.positions // reduce.BLOCK), 2))
    for first, logits, soft in pieces(problem):
        size = _tile_size(logits, reduce.BLOCK)
        workers = _workers(logits, size)
        results = Results(
            per_element[first : first + logits.positions],
            blocks[first // reduce.BLOCK :],
            np.full(workers, logits.positions),
        )
        labels = labels_of(problem, first, logits.positions)
        scratch = _scratch(workers, size, dtype)
        nothing = no_view(dtype.result)
        run(kernel, workers, size, logits, soft, labels, options, results, nothing, scratch)
        if results.bad.min() < logits.positions:
            return blocks, first + int(results.bad.min())
    return blocks, None


def _fill(logits: View, out: View, probs: bool, dtype: DType) -> None:
    size = _tile_size(logits, 1)
    workers = _workers(logits, size)
    nothing = np.empty(0, dtype.result)
    results = Results(nothing, np.empty((0, 2)), np.empty(0, np.int64))
    options = plain_options(dtype)._replace(probs=probs)
    scratch, soft = _scratch(workers, size, dtype), no_view(dtype.load)
    labels = no_labels()
    run(classwise_kernel, workers, size, logits, soft, labels, options, results, out, scratch)


def run_classwise(logits: Array, axis: int, dtype: DType, probs: bool) -> Array:
    """log-softmax over ``axis`` of a kernel view of logits, or softmax if ``probs``.

    The result has the logits' shape and their order in memory, or classes last.
    """
    out = np.empty_like(logits, dtype=dtype.result)
    if out.size == 0:
        return out
    view, out_view = view_of(logits, axis), view_of(out, axis)
    if view is not None and out_view is not None:
        _fill(view, out_view, probs, dtype)
        return out
    moved = np.moveaxis(logits, axis, -1).shape
    rows = np.empty((math.prod(moved[:-1]), moved[-1]), dtype.result)
    first = 0
    for piece in layout.chunks(logits, axis, chunk_rows(moved[-1])):
        _fill(row_view(piece), row_view(rows[first : first + len(piece)]), probs, dtype)
        first += len(piece)
    return np.moveaxis(rows.reshape(moved), -1, axis)
