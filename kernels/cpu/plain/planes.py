"""Sums of ``plain``'s planes: registers of neighbouring positions walk down some classes at a time.

Each group of classes is read in long runs of positions, and adds to sums that are kept in L1: few
streams are read at once, where lines of all classes, a power of two apart, evict each other from
cache. Shifts are integers and grow with the largest logit so far, so sums move to them exactly.
Classes that are copied to columns (``plain.columns``) are summed in the same order: a position's
bits do not depend on the run that it is in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kernels.compiled import called, inlined, never_inlined
from kernels.cpu.plain.columns import copy_planes, run_of
from kernels.cpu.plain.scratch import LABEL, MINUS, TOTAL, VALUE, WIDTH
from kernels.formula import LARGEST_SHIFT
from kernels.plan import place
from kernels.simd import (
    constant,
    exp2,
    fma,
    load,
    loader_of,
    maximum,
    minimum,
    nearest_product,
    prefetch,
    prefetch_at,
    scaled_down,
    splat,
    store,
    where_equal,
)

# Classes read at once: 8 x 19 x 512 x 256 took 1.82 ms with 4, 1.72 with 5, and 1.69 with 6.
TOGETHER = 5
# Positions from a load to its prefetch, in a run or on from it to the next: 64, 256 and 512 took
# 2.66, 2.16 and 1.82 ms there, and none 3.1.
AHEAD = 512
# Where all logits so far are -inf or far below it; ``plain`` knows no position with such a shift.
HIGHEST = np.float32(2 * LARGEST_SHIFT)


class Run(NamedTuple):
    """Positions that are neighbours in memory, at least WIDTH of them.

    Class c of position i is at ``first + c * stride + i`` in ``data``. Its sums are at ``done + i``
    of the rows of scratch.
    """

    data: Any
    first: int
    stride: int
    classes: int
    size: int
    done: int


class Ahead(NamedTuple):
    """Memory to prefetch meanwhile: logits, and from an address labels of ``label_size`` bytes.

    If ``runs``, logits are those of ``Run``, and after them those from ``first`` on, which lie in
    memory likewise. Else they are rows of so many classes: a line for 16 positions and a class.
    """

    data: Any
    first: int
    runs: bool
    labels: int
    label_size: int


def _adding(count: int, begins: bool) -> Any:
    """Function that adds ``count`` classes of a run to its sums, or ``begins`` the sums.

    They are the classes from ``number`` on. Positions before ``near`` prefetch the logits AHEAD of
    theirs, and the others those from ``after`` on: for TOGETHER classes if there are ``more``.
    The last register of a size that is not whole repeats positions, but sums them elsewhere.
    """
    load_each = loader_of(count)

    @inlined
    def largest_of(logits: Any, down: Any) -> Any:
        largest = logits[0]
        for c in range(1, count):
            largest = maximum(logits[c], largest)
        return nearest_product(largest, down)

    @inlined
    def add(
        run: Any, rows: Any, number: int, scale: Any, ahead: Any, near: int, after: int, more: bool
    ) -> None:
        x, first, last = run.data, run.first + number * run.stride, run.size - WIDTH
        minus, totals, values, labels = rows[MINUS], rows[TOTAL], rows[VALUE], rows[LABEL]
        scales, down, zero = splat(scale), splat(-scale), constant(x, 0.0)
        step, every = (1, run.stride) if ahead.runs else (run.classes, WIDTH)
        # Logits are loaded, and shifts found, one register before they are needed.
        logits, total, before = load_each(x, first, run.stride), zero, splat(HIGHEST)
        if not begins:
            before, total = load(minus, run.done), load(totals, run.done)
        shift = minimum(largest_of(logits, down), before)
        if not begins:
            total = scaled_down(total, shift - before)
        for part in range(2):
            start, stop, far = (0, near, first + AHEAD) if part == 0 else (near, run.size, after)
            for i in range(start, stop, WIDTH):
                for c in range(count):
                    prefetch(ahead.data, far + c * every)
                if more and part:
                    for c in range(count, TOGETHER):
                        prefetch(ahead.data, far + c * every)
                if begins:
                    prefetch_at(ahead.labels + i * ahead.label_size)
                    prefetch_at(ahead.labels + (i + WIDTH // 2) * ahead.label_size)
                far += WIDTH * step
                own, value, each = run.done + i, zero, splat(np.float32(number))
                if not begins:
                    value = load(values, own)
                label = load(labels, run.done + min(i, last))
                for c in range(count):
                    value = where_equal(label, each, logits[c], value)
                    each = each + splat(np.float32(1))
                later = load_each(x, first + min(i + WIDTH, last), run.stride)
                later_total, before = zero, splat(HIGHEST)
                if not begins:
                    before, later_total = load(minus, own + WIDTH), load(totals, own + WIDTH)
                later_shift = minimum(largest_of(later, down), before)
                if not begins:
                    later_total = scaled_down(later_total, later_shift - before)
                powers = zero
                for c in range(count):
                    powers = powers + exp2(fma(logits[c], scales, shift))
                # Not before the loads: LLVM moves none over a store that may be to its place.
                store(values, own, value)
                store(minus, own, shift)
                store(totals, own, total + powers)
                logits, shift, total = later, later_shift, later_total

    return add


_begin_1, _begin_2, _begin_3 = _adding(1, True), _adding(2, True), _adding(3, True)
_begin_4, _begin_5, _go_on = _adding(4, True), _adding(5, True), _adding(TOGETHER, False)


@called
def sum_run(run: Any, rows: Any, scale: Any, ahead: Any) -> None:
    """Write VALUE, MINUS and TOTAL of the positions of a ``Run``; prefetch what is ``Ahead``."""
    never_inlined()
    near = max(run.size - AHEAD, 0) // WIDTH * WIDTH if ahead.runs else 0
    count, after = (run.classes - 1) % TOGETHER + 1, ahead.first
    more = count < run.classes
    if more and ahead.runs:
        after = run.first + count * run.stride
    if count == 1:
        _begin_1(run, rows, 0, scale, ahead, near, after, more)
    elif count == 2:
        _begin_2(run, rows, 0, scale, ahead, near, after, more)
    elif count == 3:
        _begin_3(run, rows, 0, scale, ahead, near, after, more)
    elif count == 4:
        _begin_4(run, rows, 0, scale, ahead, near, after, more)
    else:
        _begin_5(run, rows, 0, scale, ahead, near, after, more)
    for number in range(count, run.classes, TOGETHER):
        after = ahead.first
        if not ahead.runs:
            after += number * WIDTH
        elif number + TOGETHER < run.classes:
            after = run.first + (number + TOGETHER) * run.stride
        _go_on(run, rows, number, scale, ahead, near, after, False)
    rest = run.size % WIDTH
    if rest:
        end = run.done + run.size
        for row in (VALUE, MINUS, TOTAL):
            store(rows[row], end - WIDTH, load(rows[row], end - rest))


@inlined
def sum_planes(
    logits: Any, lo: int, count: int, columns: Any, stride: int, rows: Any, scale: Any, labels: Any
) -> None:
    """Write VALUE, MINUS and TOTAL of ``count`` positions from ``lo`` on.

    ``labels`` are address and size of those to prefetch.
    """
    x, classes, by_class, done = logits.data, logits.classes, logits.class_stride, 0
    address, each = labels
    while done < count:
        first, size = place(logits, lo + done), run_of(logits, lo + done, count - done)
        after = address + done * each
        if size >= WIDTH:
            run = Run(x, first, by_class, classes, size, done)
            sum_run(run, rows, scale, Ahead(x, first + size, True, after, each))
        else:
            if logits.inner_size < WIDTH:
                size = count - done
            copy_planes(logits, lo + done, size, columns, stride)
            whole = (size + WIDTH - 1) // WIDTH * WIDTH
            copied = Run(columns, 0, stride, classes, whole, done)
            sum_run(copied, rows, scale, Ahead(x, first, False, after, each))
        done += size
