"""The kernels that write a value per class: log-softmax and softmax."""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined, kernel
from kernels.cpu.arguments import place
from kernels.cpu.careful import careful_sum
from kernels.cpu.planes import narrowed
from kernels.cpu.sums import sum_tile
from kernels.cpu.tile import CAREFUL, LOG2, MINUS, TOTAL, take_logarithms
from kernels.simd import (
    constant,
    element,
    exp2,
    fma,
    load_first,
    minimum,
    store_first,
    where_equal,
    where_greater,
    width,
)


@inlined
def _value(like: Any, t: Any, total: Any, log2_total: Any, to_nats: Any, probs: bool) -> Any:
    """The log-probability, or the probability, of the class whose exponent is ``t``.

    A class whose power alone is the whole sum has exactly 0, or 1.
    """
    zero, one, power = constant(like, 0.0), constant(like, 1.0), exp2(t)
    if probs:
        # exp2 stops at its smallest normal number, 2**-126 or 2**-1022.
        power = where_greater(t, constant(like, -126.0), power, zero)
        return where_equal(power, total, one, power / total)
    return where_equal(power, total, zero, minimum(zero, t - log2_total)) * to_nats


@inlined
def _write_row(
    logits: Any, out: Any, position: int, scratch: Any, at: int, options: Any, probs: bool
) -> None:
    x, y, classes = logits.data, out.data, logits.classes
    first, out_first = place(logits, position), place(out, position)
    scales, minus = constant(x, options.scale), constant(x, scratch[MINUS, at])
    total, log2_total = constant(x, scratch[TOTAL, at]), constant(x, scratch[LOG2, at])
    to_nats, zero = constant(x, options.to_nats), constant(x, 0.0)
    for i in range(0, classes, width(x)):
        t = fma(load_first(x, first + i, classes - i, zero), scales, minus)
        value = _value(x, t, total, log2_total, to_nats, probs)
        store_first(y, out_first + i, classes - i, value)


@inlined
def _write_planes(
    logits: Any, out: Any, position: int, count: int, scratch: Any, options: Any, probs: bool
) -> None:
    """A register of neighbouring positions, the first column of ``scratch`` on."""
    x, y = logits.data, out.data
    first, out_first = place(logits, position), place(out, position)
    scales, minus = constant(x, options.scale), narrowed(scratch[MINUS], x)
    total, log2_total = narrowed(scratch[TOTAL], x), narrowed(scratch[LOG2], x)
    to_nats, zero = constant(x, options.to_nats), constant(x, 0.0)
    for c in range(logits.classes):
        t = fma(load_first(x, first + c * logits.class_stride, count, zero), scales, minus)
        value = _value(x, t, total, log2_total, to_nats, probs)
        store_first(y, out_first + c * out.class_stride, count, value)


@called
def _write_carefully(logits: Any, out: Any, position: int, unit: float, probs: bool) -> None:
    first, out_first = place(logits, position), place(out, position)
    total, largest = careful_sum(logits.data, first, logits.class_stride, logits.classes, unit)
    logarithm = math.log(total)
    for c in range(logits.classes):
        gap = element(logits.data, first + c * logits.class_stride) - largest
        value = unit * gap - logarithm
        out.data[out_first + c * out.class_stride] = math.exp(value) if probs else value


@kernel
def classwise_kernel(
    worker: int,
    workers: int,
    tile: int,
    logits: Any,
    soft: Any,
    labels: Any,
    options: Any,
    results: Any,
    per_class: Any,
    scratches: Any,
) -> None:
    """Fills ``per_class`` with softmax where ``options.probs``, else log-softmax.

    It is a ``View`` that lies in memory as ``logits`` do; ``soft``, ``labels`` and ``results``
    are empty.
    """
    probs = options.probs
    tiles = (logits.positions + tile - 1) // tile
    label, scratch = scratches.labels[worker], scratches.tiles[worker]
    lanes = scratches.lanes[worker]
    label[:] = 0
    for t in range(tiles * worker // workers, tiles * (worker + 1) // workers):
        lo = t * tile
        count = min(tile, logits.positions - lo)
        sum_tile(logits, soft, options, lo, count, label, lanes, scratch)
        take_logarithms(scratch, count, options.scale, logits.data)
        if logits.class_stride == 1:
            for i in range(count):
                _write_row(logits, per_class, lo + i, scratch, i, options, probs)
        else:
            done = 0
            while done < count:
                rest = logits.inner_size - (lo + done) % logits.inner_size
                size = min(width(logits.data), count - done, rest)
                part = scratch[:, done:]
                _write_planes(logits, per_class, lo + done, size, part, options, probs)
                done += size
        for i in range(count):
            if scratch[CAREFUL, i] != 0.0:
                _write_carefully(logits, per_class, lo + i, options.unit, probs)
