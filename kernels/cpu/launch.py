"""From a checked problem to kernel calls: pieces, tiles, threads and their scratch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numba
import numpy as np

from kernels import reduce
from kernels.cpu import tile
from kernels.cpu.arguments import Options, Results, Scratch, View
from kernels.cpu.loss import cross_entropy_kernel, nll_kernel, segments_kernel
from kernels.cpu.rows import SEGMENT
from kernels.cpu.threads import bound, compiled, run
from kernels.cpu.views import PER_CLASS, PerClass, labels_of, options_of, pieces, view_of
from kernels.dtypes import DType
from kernels.problem import Array, Problem

# Elements: 64 x 1000 float32 take 80 us on one thread, Python included, and 94 us on two.
SERIAL = 65536
# Elements of a tile of rows: large enough to fill SIMD logarithms, small enough for L1.
TILE = 8192
# Positions; fewer are dealt out to threads one by one, not by blocks of the reduction.
SHARED = 1024
# Bytes of logits: 1 ms at memory speed, some 10 where every output is wanted; a launch takes 20 us.
STEP = 1 << 25
T = TypeVar("T")
Computed: TypeAlias = tuple[Array, Mapping[str, Array]]
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


class Plan(NamedTuple):
    """How a piece is cut: ``launches`` in a row, each of ``workers`` shares of tiles.

    A tile is some blocks of the reduction, of about ``TILE`` elements, so that blocks are summed
    where their losses are; but positions that are shared (``SHARED``) are dealt out one by one.
    """

    tile: int
    workers: int
    launches: int


def _plan(view: View, shared: bool, step: int | None) -> Plan:
    elements = view.positions * view.classes
    threads = 1 if elements <= SERIAL else numba.get_num_threads()
    launches = 1 if step is None else -(-elements * view.data.itemsize // step)
    rows = TILE // view.classes // reduce.BLOCK * reduce.BLOCK
    size = min(max(rows, reduce.BLOCK), tile.LARGEST)
    if shared and view.positions < size * threads * launches:
        size = -(-view.positions // (threads * launches))
    tiles = -(-view.positions // size)
    workers = min(threads, tiles)
    return Plan(size, workers, min(launches, tiles // workers))


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


def in_steps(
    problem: Problem, wanted: tuple[str, ...], upstream: float = 1.0, step: int | None = None
) -> Generator[int, None, Computed]:
    """The block sums of the losses (``kernels.reduce``), and the arrays of ``wanted``.

    Those are of ``PER_POSITION``, one-dimensional, or of ``views.PER_CLASS``, of the logits'
    shape. ``upstream`` is the derivative of what is wanted the gradient of by each loss.

    Before each step of about ``step`` bytes of logits (one, if None), yields how many bytes of
    them, from their first, have to be there. Raises ``ImpossibleLabel``.
    """
    dtype, positions, everything = problem.dtype, problem.positions, problem.logits.nbytes
    per_class = PerClass(problem, wanted)
    shared = _shared(problem)
    arrays = {
        name: np.empty(positions, kind or dtype.result)
        for name, kind in PER_POSITION.items()
        if name in wanted or (shared and name in ("losses", "weights"))
    }
    options = options_of(problem, wanted, upstream)
    kernel = _kernel(problem)
    blocks = np.empty((-(-positions // reduce.BLOCK), 2))
    in_order = step is not None and per_class.in_place and _in_order(problem)
    if not in_order:
        yield everything
    for first, logits, soft in pieces(problem, per_class.in_place):
        stop = first + logits.positions
        plan = _plan(logits, shared, step)
        shares = plan.workers * plan.launches
        results = _no_results(dtype)._replace(
            blocks=blocks[first // reduce.BLOCK :],
            bad=np.full(shares, logits.positions),
            **{name: array[first:stop] for name, array in arrays.items()},
        )
        key = _key(logits, soft, options)
        segments = 0 if problem.normalised else _segments(logits)
        if segments:
            options = options._replace(segments=np.empty((segments, 2)))
        arguments = (
            plan.tile,
            logits,
            soft,
            labels_of(problem, first, logits.positions),
            options,
            results,
            *per_class.views(first, logits),
            _scratch(plan.workers, plan.tile, dtype),
        )
        if segments:
            yield everything
            threads = min(numba.get_num_threads(), segments)
            run(segments_kernel, key, threads, *arguments)
        for launch in range(plan.launches):
            if plan.launches > 1 or in_order or first:
                done = -(-logits.positions // plan.tile) * (launch + 1) // plan.launches
                yield _reach(logits, done * plan.tile) if in_order else everything
            run(kernel, key, plan.workers, *arguments, first=launch * plan.workers, shares=shares)
            wrong = min(results.bad.tolist())
            if wrong < logits.positions:
                raise ImpossibleLabel(first + wrong)
    if shared:
        blocks = reduce.sum_all_blocks(np.stack([arrays["losses"], arrays["weights"]]))
    return blocks, {**arrays, **per_class.arrays()}


def _key(logits: View, soft: View, options: Options) -> tuple[Any, ...]:
    """What the types of all of a kernel's arguments follow from."""
    return logits.data.dtype, soft.data.dtype, options.cap is None


def ready(problem: Problem, wanted: tuple[str, ...]) -> Callable[[], Computed] | None:
    """A call that returns what ``in_steps`` does, for ``problem`` as its arrays are by then.

    None where its kernel is not compiled yet: callers may have no time for that.
    That is small, not empty, and of logits that need no copy; ``wanted`` is of "loss" and
    "per_element". The same arrays are given each time. Raises ``ImpossibleLabel``.
    """
    ((_, logits, soft),) = pieces(problem, True)
    positions, options = logits.positions, options_of(problem, wanted, 1.0)
    kernel, key = _kernel(problem), _key(logits, soft, options)
    if not compiled(kernel, key):
        return None
    plan = _plan(logits, False, None)
    blocks = np.empty((-(-positions // reduce.BLOCK), 2))
    bad = np.empty(1, np.int64)
    arrays = {name: np.empty(positions, problem.dtype.result) for name in wanted if name != "loss"}
    arguments = (
        plan.tile,
        logits,
        soft,
        labels_of(problem, 0, positions),
        options,
        _no_results(problem.dtype)._replace(blocks=blocks, bad=bad, **arrays),
        *PerClass(problem, wanted).views(0, logits),
        _scratch(1, plan.tile, problem.dtype),
    )
    call = bound(kernel, key, *arguments)

    def compute_again() -> Computed:
        bad[0] = positions
        call()
        if bad[0] < positions:
            raise ImpossibleLabel(int(bad[0]))
        return blocks, arrays

    return compute_again


def finish(steps: Generator[int, None, T]) -> T:
    """What ``steps`` return, all taken at once."""
    while True:
        try:
            next(steps)
        except StopIteration as stopped:
            result: T = stopped.value
            return result


def compute(problem: Problem, wanted: tuple[str, ...], upstream: float = 1.0) -> Computed:
    """``in_steps`` all at once."""
    return finish(in_steps(problem, wanted, upstream))


def result_bytes(problem: Problem, wanted: tuple[str, ...]) -> int:
    """Bytes of the arrays that ``in_steps`` makes for its results."""
    kept = {*wanted, "losses", "weights"} if _shared(problem) else {*wanted}
    each = sum(
        np.dtype(kind or problem.dtype.result).itemsize
        for name, kind in PER_POSITION.items()
        if name in kept
    )
    whole = sum(name in kept for name in PER_CLASS) * problem.dtype.result.itemsize
    blocks = -(-problem.positions // reduce.BLOCK) * 16
    return each * problem.positions + whole * problem.logits.size + blocks


def window(problem: Problem, step: int) -> int | None:
    """Bytes of logits, up to the end of those that a step announces, that are read from then on.

    That many at most: whatever lies before them is done with. None where all of them are wanted.
    """
    logits = view_of(problem.logits, problem.axis)
    if logits is None or problem.logits.size == 0 or not _in_order(problem):
        return None
    if not PerClass(problem, ()).in_place or (not problem.normalised and _segments(logits)):
        return None
    plan = _plan(logits, _shared(problem), step)
    tiles = -(-logits.positions // plan.tile)
    positions = -(-tiles // plan.launches) * plan.tile
    # They may begin and end in the middle of what an outer index holds.
    return _reach(logits, positions + logits.inner_size - 1)


def quick(problem: Problem) -> bool:
    """Whether the problem takes well below a millisecond on this one thread, all compiled."""
    if problem.logits.size > SERIAL:
        return False
    soft = problem.logits if problem.soft is None else problem.soft
    key = (problem.logits.dtype, soft.dtype, problem.softcap is None)
    return compiled(_kernel(problem), key)


def _shared(problem: Problem) -> bool:
    return problem.positions < SHARED and problem.logits.size > SERIAL


def _kernel(problem: Problem) -> Any:
    return nll_kernel if problem.normalised else cross_entropy_kernel


def _in_order(problem: Problem) -> bool:
    """Whether positions in order are memory in order, read where it lies."""
    return problem.logits.flags.c_contiguous and view_of(problem.logits, problem.axis) is not None


def _reach(logits: View, positions: int) -> int:
    """Bytes of contiguous ``logits`` up to the end of those that the first ``positions`` take."""
    outer = min(-(-positions // logits.inner_size) * logits.outer_stride, logits.data.size)
    return outer * logits.data.itemsize
