"""Calls of the kernel that summarises rows for a report."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from kernels.cpu.arguments import Operands
from kernels.cpu.launch.loss import threads_of
from kernels.cpu.launch.scratch import scratch_of
from kernels.cpu.launch.threads import run
from kernels.cpu.launch.views import view_of
from kernels.cpu.loss.summary import Found, summary_kernel
from kernels.cpu.sums.short import LARGEST as SHORT
from kernels.dtypes import FLOAT64
from kernels.options import options_of
from kernels.plan import View, finish
from kernels.problem import Problem

Array = np.ndarray[Any, Any]

# Positions of a tile, at most; and tiles of each thread and launch, at least, of enough rows.
_TILE, _TILES = 64, 4


def summarised(problem: Problem) -> bool:
    """Return True if ``summary`` takes ``problem``: its kernels differ in dtype only.

    That is for long rows of contiguous classes on the CPU, float64 and softcaps aside.
    """
    return _view(problem) is not None


def _view(problem: Problem) -> View | None:
    known = problem.device == "cpu" and problem.dtype is not FLOAT64 and problem.classes > SHORT
    if not known or problem.softcap is not None or problem.focal or not problem.logits.size:
        return None
    view = view_of(problem.logits, problem.axis)
    return view if view is not None and view.class_stride == 1 else None


def summary(problem: Problem, labels: Array) -> Found:
    """Compute the ``Found`` of the positions of a problem that is ``summarised``.

    ``labels`` is int64, all of them classes; weights and smoothing make no difference.
    """
    return finish(in_steps(problem, labels, 1, int))


def in_steps(
    problem: Problem, labels: Array, launches: int, reach: Callable[[int], int]
) -> Generator[int, None, Found]:
    """``summary`` in about so many ``launches``.

    Before each, yields the ``reach`` of so many positions, from the first, as it reads.
    """
    view = _view(problem)
    assert view is not None
    positions = view.positions
    found = Found(*(np.empty(positions) for _ in range(4)), *np.empty((2, positions), np.int64))
    threads = threads_of(problem.logits.size)
    tile = max(1, min(_TILE, positions // (launches * threads * _TILES)))
    number = -(-positions // tile)
    workers = min(threads, number)
    launches = min(launches, number // workers)
    tiles = scratch_of(workers, tile, view, problem.dtype).tiles
    options = options_of(problem, (), 1.0)._replace(
        weight=np.empty(0), lane_weight=np.empty(0, problem.dtype.result)
    )
    contents: tuple[Any, ...] = (tile, view, 0, labels, options, found, 0, 0, tiles, None)
    # Operands of other types than a loss's, with a kernel of their own.
    operands, key, shares = Operands(*contents), (problem.logits.dtype,), workers * launches
    for launch in range(launches):
        yield reach(min(number * (launch + 1) // launches * tile, positions))
        run(summary_kernel, key, workers, operands, first=launch * workers, shares=shares)
    return found
