"""Kernels for contiguous classes: some lanes, a block or several blocks a row.

A thread reads 16 bytes of logits at a time, in one load where the row lies on a multiple of 16 and
element by element where it does not: each thread adds the same elements, so the bits are the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba import cuda

from kernels.cuda.kinds import TABLE, Kind, Shape, target
from kernels.cuda.loss.position import (
    IGNORED,
    IMPOSSIBLE,
    finish,
    label_of,
    leave_out,
    own_logit,
    place,
)
from kernels.cuda.sums.teams import WARP, put, teams
from kernels.cuda.sums.thread import functions

device = target.device
aligned, vector, first_of_vector = target.aligned, target.vector, target.first_of_vector
element = target.element


@lru_cache
def _walk(kind: Kind) -> Any:
    """Function that adds every ``stride``-th vector of 16 bytes of a row's classes, from ``c`` to
    ``stop``.
    """
    add, start, width = functions(kind).add_vector, functions(kind).start, 16 // kind.dtype.size

    @device
    def walk(
        logits: Any, first: int, c: int, stop: int, stride: int, y: int, own: Any, options: Any,
        soft: Any, soft_first: int,
    ) -> Any:  # fmt: skip
        sums = start()
        whole = aligned(logits.data, first)
        while c + width <= stop:
            if whole:
                values = vector(logits.data, first + c)
            else:
                values = first_of_vector(logits.data, first + c, width)
            sums = add(sums, values, width, c, y, own, options, soft, soft_first + c)
            c += stride * width
        if c < stop:
            values = first_of_vector(logits.data, first + c, stop - c)
            sums = add(sums, values, stop - c, c, y, own, options, soft, soft_first + c)
        return sums

    return walk


@lru_cache
def _step(kind: Kind) -> Any:
    """``_walk`` for short rows, an element at a time: neighbouring lanes read neighbours."""
    add, start = functions(kind).add, functions(kind).start

    @device
    def step(
        logits: Any, first: int, c: int, stop: int, stride: int, y: int, own: Any, options: Any,
        soft: Any, soft_first: int,
    ) -> Any:  # fmt: skip
        sums = start()
        while c < stop:
            value = (element(logits.data, first + c),)
            sums = add(sums, value, 1, c, y, own, options, soft, soft_first + c)
            c += stride
        return sums

    return step


@lru_cache
def lanes_kernel(kind: Kind, shape: Shape) -> Any:
    """Kernel for short rows: some lanes a row, a warp at most."""
    lanes, rows = shape.lanes, shape.threads // shape.lanes
    wide = lanes == WARP
    walk, step = _walk(kind) if wide else _step(kind), 16 // kind.dtype.size if wide else 1
    of_lanes, own_logit_, finish_ = teams(kind).of_lanes, own_logit(kind), finish(kind)
    softly = kind.soft

    @target.kernel(shape.threads)
    def sum_rows_by_lanes(logits: Any, soft: Any, labels: Any, options: Any, results: Any) -> None:
        position = cuda.blockIdx.x * rows + cuda.threadIdx.x // lanes
        lane = cuda.threadIdx.x % lanes
        y, stop, first = IGNORED, 0, 0
        if position < logits.positions:
            y = label_of(labels, position, logits.classes)
            first = place(logits, position)
            if y >= 0 or softly or (y == IGNORED and options.ignored_too):
                stop = logits.classes
        own = own_logit_(logits, first, y)
        soft_first = place(soft, position) if softly else 0
        sums = walk(logits, first, lane * step, stop, lanes, y, own, options, soft, soft_first)
        sums = of_lanes(sums, lanes)
        if lane == 0 and position < logits.positions:
            if stop == 0:
                leave_out(position, y, options, results)
            else:
                finish_(position, sums, y, own, logits, soft, labels, options, results)

    return sum_rows_by_lanes


@lru_cache
def block_kernel(kind: Kind, threads: int) -> Any:
    """Kernel for longer rows: a block for each segment of a row."""
    segment = TABLE.segment
    walk, of_block, own_logit_ = _walk(kind), teams(kind).of_block, own_logit(kind)
    finish_, width, softly = finish(kind), 16 // kind.dtype.size, kind.soft

    @target.kernel(threads)
    def sum_rows_by_blocks(
        logits: Any, soft: Any, labels: Any, options: Any, results: Any, segments: int
    ) -> None:
        position, part = cuda.blockIdx.x, cuda.blockIdx.y
        y = label_of(labels, position, logits.classes)
        if y == IMPOSSIBLE or (y < 0 and not softly and not options.ignored_too):
            if part == 0 and cuda.threadIdx.x == 0:
                leave_out(position, y, options, results)
            return
        first = place(logits, position)
        own = own_logit_(logits, first, y)
        soft_first = place(soft, position) if softly else 0
        c = part * segment + cuda.threadIdx.x * width
        stop = min((part + 1) * segment, logits.classes)
        sums = walk(logits, first, c, stop, threads, y, own, options, soft, soft_first)
        sums = of_block(sums, False)
        if cuda.threadIdx.x != 0:
            return
        if segments == 1:
            finish_(position, sums, y, own, logits, soft, labels, options, results)
        else:
            put(sums, results.parts, results.places, part * logits.positions + position)

    return sum_rows_by_blocks
