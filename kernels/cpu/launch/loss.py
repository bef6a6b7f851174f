"""Kernel calls for a checked problem: pieces, tiles, threads and their scratch."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import numba
import numpy as np

from kernels import reduce
from kernels.cpu.arguments import Likeliest, Operands
from kernels.cpu.launch.results import Outputs, outputs_of
from kernels.cpu.launch.scratch import scratch_of
from kernels.cpu.launch.threads import compiled, run
from kernels.cpu.launch.views import (
    PerClass,
    labels_of,
    pieces,
    view_of,
)
from kernels.cpu.loss.binary import binary_kernel
from kernels.cpu.loss.cross_entropy import cross_entropy_kernel, nll_kernel, segments_kernel
from kernels.cpu.sums.rows import SEGMENT
from kernels.options import Options, options_of
from kernels.plan import (
    BY_SEQUENCE,
    LIKELIEST,
    PER_CLASS,
    PER_POSITION,
    STEP,
    Computed,
    ImpossibleLabel,
    View,
)
from kernels.problem import Problem

# Elements: 64 x 1000 float32 take 80 us on one thread, Python included, and 94 us on two.
SERIAL = 65536
# Elements of a tile of rows: large enough to fill SIMD logarithms, small enough for L1.
TILE = 8192
# Positions of a tile, which are neighbours in planes: at least and at most, and tiles for each
# thread and launch if there can be so many. 19 planes took 9 % longer with 256, rows of 10 classes
# 10 %.
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


class Cut(NamedTuple):
    """Division of a piece: ``launches`` in a row, each of ``workers`` shares of tiles.

    A tile is some blocks of the reduction, of about ``TILE`` elements, so that blocks are summed
    where their losses are; but shared positions (fewer than ``SHARED``) are dealt out one by one.
    """

    tile: int
    workers: int
    launches: int


class Launch(NamedTuple):
    """Launch of a ``kernel`` on ``workers``, and what it writes."""

    kernel: Any
    key: tuple[Any, ...]
    workers: int
    operands: Operands
    outputs: Outputs


def threads_of(elements: int) -> int:
    """Number of threads that so many logits are worth now."""
    return 1 if elements <= SERIAL else numba.get_num_threads()


def _cut(view: View, shared: bool, step: int | None) -> Cut:
    elements = view.positions * view.classes
    threads = threads_of(elements)
    launches = 1 if step is None else -(-elements * view.data.itemsize // step)
    each = view.positions // (launches * threads * TILES)
    size = min(max(each // RUN * RUN, RUN), LONG_RUN)
    if view.class_stride == 1:
        size = min(max(TILE // view.classes // reduce.BLOCK * reduce.BLOCK, reduce.BLOCK), size)
        if step is not None and step < STEP:
            tiles = step // (size * view.classes * view.data.itemsize)
            threads = min(threads, max(STREAMING, tiles))
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
    outputs, everything = outputs_of(problem, wanted, _shared(problem)), problem.logits.nbytes
    options, kernel = options_of(problem, wanted, upstream), _kernel(problem)
    in_order = step is not None and outputs.per_class.in_place and _in_order(problem)
    if not in_order:
        yield everything
    for piece in pieces(problem, outputs.per_class.in_place):
        first, logits, soft = piece
        cut = _cut(logits, outputs.shared, step)
        operands = _operands(problem, options, outputs, cut, piece)
        key = _key(logits, soft, options, operands.likeliest)
        # Maxima are kept by the worker that needs them: it sums the whole row.
        alone = operands.likeliest is None and not problem.normalised
        segments = _segments(logits) if alone else 0
        if segments:
            halves = options._replace(segments=np.empty((segments, 2)))
            operands = operands._replace(options=halves)
            yield everything
            run(segments_kernel, key, min(numba.get_num_threads(), segments), operands)
        for launch in range(cut.launches):
            if cut.launches > 1 or in_order or first:
                done = -(-logits.positions // cut.tile) * (launch + 1) // cut.launches
                yield _reach(logits, done * cut.tile) if in_order else everything
            shares = cut.workers * cut.launches
            run(kernel, key, cut.workers, operands, first=launch * cut.workers, shares=shares)
            wrong = min(operands.results.bad.tolist())
            if wrong < logits.positions:
                raise ImpossibleLabel(first + wrong)
    blocks, arrays = outputs.blocks, outputs.arrays
    if outputs.shared:
        blocks = reduce.sum_all_blocks(np.stack([arrays["losses"], arrays["weights"]]))
    return blocks, {**arrays, **outputs.per_class.arrays(), **outputs.likeliest.arrays()}


def _operands(
    problem: Problem, options: Options, outputs: Outputs, cut: Cut, piece: tuple[int, View, View]
) -> Operands:
    """Operands of a kernel for a ``piece`` of the problem."""
    first, logits, soft = piece
    shares = cut.workers * cut.launches
    return Operands(
        cut.tile,
        logits,
        soft,
        labels_of(problem, first, logits.positions),
        options,
        outputs.results(problem.dtype, first, logits.positions, shares),
        *outputs.per_class.views(first, logits),
        scratch_of(cut.workers, cut.tile, logits, problem.dtype),
        outputs.likeliest.arguments(first, logits, cut.workers),
    )


def _key(
    logits: View, soft: View, options: Options, likeliest: Likeliest | None
) -> tuple[Any, ...]:
    """Key of a kernel's code: the type of its operands follows from it."""
    return logits.data.dtype, soft.data.dtype, options.cap is None, likeliest is None


def whole(problem: Problem, wanted: tuple[str, ...]) -> Launch | None:
    """The launch that computes what ``in_steps`` does, at once.

    ``problem`` is not empty, and read in place; ``wanted`` has none of ``PER_CLASS``. None where
    threads share rows.
    """
    (piece,) = pieces(problem, True)
    _, logits, soft = piece
    options = options_of(problem, wanted, 1.0)
    outputs = outputs_of(problem, wanted, _shared(problem))
    cut = _cut(logits, outputs.shared, None)
    operands = _operands(problem, options, outputs, cut, piece)
    if operands.likeliest is None and _segments(logits):
        return None
    key = _key(logits, soft, options, operands.likeliest)
    return Launch(_kernel(problem), key, cut.workers, operands, outputs)


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
