"""Kernels for strided classes of contiguous positions: a thread a position.

Neighbouring threads read neighbouring elements. Many classes are cut into segments, for there may
be few positions; ``merge_kernel`` merges the sums of these, or those of a row's blocks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba import cuda

from kernels.cuda.kinds import TABLE, Kind, target
from kernels.cuda.loss.position import IMPOSSIBLE, finish, label_of, leave_out, own_logit, place
from kernels.cuda.sums.teams import got, put
from kernels.cuda.sums.thread import functions

element = target.element


@lru_cache
def plane_kernel(kind: Kind) -> Any:
    """Kernel that sums one segment of the classes of each position."""
    add, start, softly = functions(kind).add, functions(kind).start, kind.soft
    own_logit_, finish_, segment = own_logit(kind), finish(kind), TABLE.plane_segment

    @target.kernel(TABLE.threads)
    def sum_planes(
        logits: Any, soft: Any, labels: Any, options: Any, results: Any, segments: int
    ) -> None:
        position = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if position >= logits.positions:
            return
        part = cuda.blockIdx.y
        y = label_of(labels, position, logits.classes)
        if y == IMPOSSIBLE or (y < 0 and not softly and not options.ignored_too):
            if part == 0:
                leave_out(position, y, options, results)
            return
        first = place(logits, position)
        own = own_logit_(logits, first, y)
        c, stop = part * segment, min((part + 1) * segment, logits.classes)
        at = first + c * logits.class_stride
        soft_at = place(soft, position) + c * soft.class_stride if softly else 0
        sums = start()
        while c < stop:
            sums = add(sums, (element(logits.data, at),), 1, c, y, own, options, soft, soft_at)
            c += 1
            at += logits.class_stride
            soft_at += soft.class_stride
        if segments == 1:
            finish_(position, sums, y, own, logits, soft, labels, options, results)
        else:
            put(sums, results.parts, results.places, part * logits.positions + position)

    return sum_planes


@lru_cache
def merge_kernel(kind: Kind) -> Any:
    """Kernel that merges the segments of each position, from first to last."""
    start, merge, softly = functions(kind).start, functions(kind).merge, kind.soft
    own_logit_, finish_ = own_logit(kind), finish(kind)

    @target.kernel(TABLE.threads)
    def merge_segments(
        logits: Any, soft: Any, labels: Any, options: Any, results: Any, segments: int
    ) -> None:
        position = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if position >= logits.positions:
            return
        y = label_of(labels, position, logits.classes)
        if y == IMPOSSIBLE or (y < 0 and not softly and not options.ignored_too):
            return
        own = own_logit_(logits, place(logits, position), y)
        sums = start()
        for part in range(segments):
            at = part * logits.positions + position
            sums = merge(sums, got(results.parts, results.places, at))
        finish_(position, sums, y, own, logits, soft, labels, options, results)

    return merge_segments
