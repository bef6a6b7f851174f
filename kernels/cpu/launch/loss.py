"""Kernel calls for a checked problem: pieces, tiles, threads and their scratch."""

from __future__ import annotations

from collections.abc import Generator
from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np

from kernels import reduce
from kernels.cpu import tile
from kernels.cpu.arguments import Operands, Results
from kernels.cpu.launch.objects import KNOWN_FIELDS
from kernels.cpu.launch.planned import Call, call_of
from kernels.cpu.launch.scratch import scratch_of
from kernels.cpu.launch.threads import compiled, run
from kernels.cpu.launch.views import (
    LikeliestArrays,
    PerClass,
    labels_of,
    pieces,
    view_of,
)
from kernels.cpu.loss.binary import binary_kernel
from kernels.cpu.loss.cross_entropy import cross_entropy_kernel, nll_kernel, segments_kernel
from kernels.cpu.sums.rows import SEGMENT
from kernels.dtypes import DType
from kernels.options import Options, options_of
from kernels.plan import (
    BY_SEQUENCE,
    LIKELIEST,
    PER_CLASS,
    PER_POSITION,
    STEP,
    Array,
    Computed,
    ImpossibleLabel,
    View,
)
from kernels.problem import Problem
from kernels.sequences import moved

# Elements: 64 x 1000 float32 take 80 us on one thread, Python included, and 94 us on two.
SERIAL = 65536
# Elements of a tile of rows: large enough to fill SIMD logarithms, small enough for L1.
TILE = 8192
# Positions of a tile of planes, read in runs of so many neighbours: at least and at most, and tiles
# for each thread and launch if there can be so many. 19 planes took 9 % longer in runs of 256.
RUN, LONG_RUN, TILES = 128, 1024, 8
# Positions; fewer are dealt out to threads one by one, not by blocks of the reduction.
SHARED = 1024
# Threads of a step below ``STEP``, if their tiles are larger than it. Such a step is of a body that
# streams, and each thread's tile is held meanwhile: 256 MB for 64 threads and 32000 classes. One
# socket brings some 8 GB/s at most, and one thread computes 10 and more.
STREAMING = 4
_KERNELS = {
    "cross_entropy": cross_entropy_kernel,
    "nll_loss": nll_kernel,
    "binary_cross_entropy": binary_kernel,
}


class Ready(NamedTuple):
    """A loss that is ready to run: each ``call`` writes the ``blocks`` and ``arrays`` anew."""

    call: Call
    blocks: Array
    arrays: dict[str, Array]


@lru_cache  # made anew it takes 8 us, of a small loss's 25
def _no_results(dtype: DType) -> Results:
    empty = {name: np.empty(0, kind or dtype.result) for name, kind in PER_POSITION.items()}
    none = np.empty(0, np.int64)
    return Results(np.empty((0, 2)), bad=none, sequence=none, sequence_greedy=none, **empty)


class Cut(NamedTuple):
    """Division of a piece: ``launches`` in a row, each of ``workers`` shares of tiles.

    A tile is some blocks of the reduction, of about ``TILE`` elements, so that blocks are summed
    where their losses are; but shared positions (fewer than ``SHARED``) are dealt out one by one.
    """

    tile: int
    workers: int
    launches: int


def _cut(view: View, shared: bool, step: int | None) -> Cut:
    elements = view.positions * view.classes
    threads = 1 if elements <= SERIAL else numba.get_num_threads()
    launches = 1 if step is None else -(-elements * view.data.itemsize // step)
    rows = TILE // view.classes // reduce.BLOCK * reduce.BLOCK
    size = min(max(rows, reduce.BLOCK), tile.LARGEST)
    if step is not None and step < STEP and view.class_stride == 1:
        tiles = step // (size * view.classes * view.data.itemsize)
        threads = min(threads, max(STREAMING, tiles))
    if view.class_stride != 1:
        each = view.positions // (launches * threads * TILES)
        size = min(max(each // RUN * RUN, RUN), LONG_RUN)
    if shared and view.positions < size * threads * launches:
        size = -(-view.positions // (threads * launches))
    tiles = -(-view.positions // size)
    workers = min(threads, tiles)
    return Cut(size, workers, min(launches, tiles // workers))


def _segments(view: View) -> int:
    """Number of segments of all rows, where threads have to share these; else 0."""
    threads = numba.get_num_threads()
    if view.class_stride != 1 or view.classes <= SEGMENT or view.positions >= threads:
        return 0
    return view.positions * -(-view.classes // SEGMENT)


def in_steps(
    problem: Problem, wanted: tuple[str, ...], upstream: float = 1.0, step: int | None = None
) -> Generator[int, None, Computed]:
    """Compute the block sums of the losses (``kernels.reduce``), and the arrays of ``wanted``.

    Those are of ``plan.PER_POSITION``, one-dimensional, or of ``plan.PER_CLASS``, of the logits'
    shape. ``upstream`` is the derivative by each loss of the value whose gradient is wanted.

    Before each step of about ``step`` bytes of logits (one, if None), yields how many bytes of
    them, from their first, have to be there. Raises ``ImpossibleLabel``.
    """
    dtype, positions, everything = problem.dtype, problem.positions, problem.logits.nbytes
    per_class, likeliest = PerClass(problem, wanted), LikeliestArrays(problem, wanted)
    shared = _shared(problem)
    arrays = {
        name: np.empty(positions, kind or dtype.result)
        for name, kind in PER_POSITION.items()
        if name in wanted or (shared and name in ("losses", "weights"))
    }
    by_sequence: dict[str, Any] = {}
    if "sequence_greedy" in wanted:
        sequence = moved(problem.sequences.of, -problem.shift, 0).reshape(-1)
        by_sequence["sequence_greedy"] = np.ones(problem.sequences.size, np.int64)
    options = options_of(problem, wanted, upstream)
    kernel = _kernel(problem)
    blocks = np.empty((-(-positions // reduce.BLOCK), 2))
    in_order = step is not None and per_class.in_place and _in_order(problem)
    if not in_order:
        yield everything
    for first, logits, soft in pieces(problem, per_class.in_place):
        stop = first + logits.positions
        cut = _cut(logits, shared, step)
        shares = cut.workers * cut.launches
        results = _no_results(dtype)._replace(
            blocks=blocks[first // reduce.BLOCK :],
            bad=np.full(shares, logits.positions),
            **{name: array[first:stop] for name, array in arrays.items()},
            **by_sequence,
        )
        if by_sequence:
            results = results._replace(sequence=sequence[first:stop])
        about = likeliest.arguments(first, logits, cut.workers)
        key = (*_key(logits, soft, options), about is None)
        # Maxima are kept by the worker that needs them: it sums the whole row.
        segments = 0 if problem.normalised or about is not None else _segments(logits)
        if segments:
            options = options._replace(segments=np.empty((segments, 2)))
        operands = Operands(
            cut.tile,
            logits,
            soft,
            labels_of(problem, first, logits.positions),
            options,
            results,
            *per_class.views(first, logits),
            scratch_of(cut.workers, cut.tile, logits, dtype),
            about,
        )
        if segments:
            yield everything
            run(segments_kernel, key, min(numba.get_num_threads(), segments), operands)
        for launch in range(cut.launches):
            if cut.launches > 1 or in_order or first:
                done = -(-logits.positions // cut.tile) * (launch + 1) // cut.launches
                yield _reach(logits, done * cut.tile) if in_order else everything
            run(kernel, key, cut.workers, operands, first=launch * cut.workers, shares=shares)
            wrong = min(results.bad.tolist())
            if wrong < logits.positions:
                raise ImpossibleLabel(first + wrong)
    if shared:
        blocks = reduce.sum_all_blocks(np.stack([arrays["losses"], arrays["weights"]]))
    return blocks, {**arrays, **by_sequence, **per_class.arrays(), **likeliest.arrays()}


def _key(logits: View, soft: View, options: Options) -> tuple[Any, ...]:
    """Key of a kernel's code: the type of its operands follows from it."""
    return logits.data.dtype, soft.data.dtype, options.cap is None


def ready(problem: Problem, wanted: tuple[str, ...], logits: Array, labels: Array) -> Ready | None:
    """A call that computes what ``in_steps`` does, for arrays that lie as the two given.

    ``problem`` is made of these, without a copy, and is not empty; ``wanted`` is of scalars and
    "per_element". None where the kernel is not compiled yet, since callers may have no time for
    that, or where threads share rows.
    """
    ((_, view, soft),) = pieces(problem, True)
    positions, options, shared = view.positions, options_of(problem, wanted, 1.0), _shared(problem)
    kernel, key = _kernel(problem), (*_key(view, soft, options), True)
    if not (KNOWN_FIELDS and compiled(kernel, key)) or _segments(view):
        return None
    cut = _cut(view, shared, None)
    blocks = np.empty((-(-positions // reduce.BLOCK), 2))
    bad = np.full(cut.workers, positions)
    names = [name for name in wanted if name in PER_POSITION]
    arrays = {name: np.empty(positions, problem.dtype.result) for name in names}
    alone = np.empty((2, positions if shared else 0))
    results = _no_results(problem.dtype)._replace(
        blocks=blocks, bad=bad, losses=alone[0], weights=alone[1], **arrays
    )
    operands = Operands(
        cut.tile,
        view,
        soft,
        labels_of(problem, 0, positions),
        options,
        results,
        *PerClass(problem, wanted).views(0, view),
        scratch_of(cut.workers, cut.tile, view, problem.dtype),
    )
    mean = problem.reduction == "mean"
    call = call_of(kernel, key, cut.workers, operands, (logits, labels), alone, mean)
    return Ready(call, blocks, arrays)


def result_bytes(problem: Problem, wanted: tuple[str, ...]) -> int:
    """Bytes of the arrays that ``in_steps`` returns."""
    kept = {*wanted, "losses", "weights"} if _shared(problem) else {*wanted}
    each = sum(
        np.dtype(kind or problem.dtype.result).itemsize
        for name, kind in PER_POSITION.items()
        if name in kept
    )
    whole = sum(name in kept for name in PER_CLASS) * problem.dtype.result.itemsize
    each += sum(
        np.dtype(kind or problem.dtype.result).itemsize * problem.values_each(name)
        for name, kind in LIKELIEST.items()
        if name in kept
    )
    # Each position's sequence, and at most one sequence a position and one a row.
    each += 0 if BY_SEQUENCE.isdisjoint(wanted) else 3 * np.dtype(np.int64).itemsize
    blocks = -(-problem.positions // reduce.BLOCK) * 16
    return each * problem.positions + whole * problem.logits.size + blocks


def window(problem: Problem, step: int) -> int | None:
    """Bytes of logits, before the end of those that a step announces, that may still be read.

    Earlier ones are never read again. None where all of them have to stay.
    """
    logits = view_of(problem.logits, problem.axis)
    if logits is None or problem.logits.size == 0 or not _in_order(problem):
        return None
    if not PerClass(problem, ()).in_place or (not problem.normalised and _segments(logits)):
        return None
    cut = _cut(logits, _shared(problem), step)
    tiles = -(-logits.positions // cut.tile)
    positions = -(-tiles // cut.launches) * cut.tile
    # A step may begin and end between the inner positions of one outer index.
    return _reach(logits, positions + logits.inner_size - 1)


def quick(problem: Problem, wanted: tuple[str, ...] = ()) -> bool:
    """Return True if the problem takes well below a millisecond on this thread, all compiled."""
    if problem.logits.size > SERIAL:
        return False
    soft = problem.logits if problem.soft is None else problem.soft
    plain = LIKELIEST.keys().isdisjoint(wanted)
    key = (problem.logits.dtype, soft.dtype, problem.softcap is None, plain)
    return compiled(_kernel(problem), key)


def _shared(problem: Problem) -> bool:
    return problem.positions < SHARED and problem.logits.size > SERIAL


def _kernel(problem: Problem) -> Any:
    return _KERNELS[problem.operation]


def _in_order(problem: Problem) -> bool:
    """Return True if positions in order are memory in order, and kernels need no copy."""
    return problem.logits.flags.c_contiguous and view_of(problem.logits, problem.axis) is not None


def _reach(logits: View, positions: int) -> int:
    """Bytes from the start of contiguous ``logits`` to the end of the first ``positions``."""
    outer = min(-(-positions // logits.inner_size) * logits.outer_stride, logits.data.size)
    return outer * logits.data.itemsize
