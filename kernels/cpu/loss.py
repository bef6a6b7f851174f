"""The loss kernels: cross-entropy, and NLL of given log-probabilities.

Per tile: the labels, proved; the sums over classes; the logarithms; the losses; their block
sums. They write into what they are given, allocate nothing and raise nothing.
"""

from __future__ import annotations

from typing import Any

from kernels.compiled import inlined, kernel
from kernels.cpu.arguments import place
from kernels.cpu.sums import sum_tile
from kernels.cpu.tile import (
    LOG_PROB,
    LOSS,
    WEIGHT,
    prove_labels,
    read_labels,
    soft_tile,
    take_logarithms,
    weigh_tile,
)
from kernels.reduce import BLOCK, sum_blocks
from kernels.simd import element


@inlined
def _take_labels(
    labels: Any, lo: int, count: int, classes: int, label: Any, bad: Any, worker: int
) -> None:
    """The tile's labels, proved; the first impossible one goes to ``bad[worker]``."""
    read_labels(labels, lo, count, label)
    wrong = prove_labels(label, count, classes, labels.ignore_index)
    if wrong < count and lo + wrong < bad[worker]:
        bad[worker] = lo + wrong


@inlined
def _give_losses(results: Any, scratch: Any, lo: int, count: int) -> None:
    sum_blocks(scratch[LOSS], scratch[WEIGHT], count, results.blocks, lo // BLOCK)
    if results.per_element.size:
        losses, out = scratch[LOSS], results.per_element[lo : lo + count]
        for i in range(count):
            out[i] = losses[i]


@kernel
def cross_entropy_kernel(
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
    """The losses of share ``worker``, of ``workers`` contiguous shares of all tiles.

    ``soft`` is a ``View`` of class probabilities, with empty data where ``labels`` (class
    indices) count. See ``arguments`` for the rest.
    """
    tiles = (logits.positions + tile - 1) // tile
    label, scratch = scratches.labels[worker], scratches.tiles[worker]
    lanes = scratches.lanes[worker]
    for t in range(tiles * worker // workers, tiles * (worker + 1) // workers):
        lo = t * tile
        count = min(tile, logits.positions - lo)
        if soft.data.size:
            label[:count] = -1
        else:
            _take_labels(labels, lo, count, logits.classes, label, results.bad, worker)
        sum_tile(logits, soft, options, lo, count, label, lanes, scratch)
        take_logarithms(scratch, count, options.scale, logits.data)
        if soft.data.size:
            soft_tile(scratch, count, options)
        else:
            weigh_tile(scratch, label, count, options)
        _give_losses(results, scratch, lo, count)


@kernel
def nll_kernel(
    worker: int,
    workers: int,
    tile: int,
    log_probs: Any,
    soft: Any,
    labels: Any,
    options: Any,
    results: Any,
    per_class: Any,
    scratches: Any,
) -> None:
    """``cross_entropy_kernel`` for logits that are log-probabilities already: only the labels' are read."""
    x, stride = log_probs.data, log_probs.class_stride
    tiles = (log_probs.positions + tile - 1) // tile
    label, scratch = scratches.labels[worker], scratches.tiles[worker]
    for t in range(tiles * worker // workers, tiles * (worker + 1) // workers):
        lo = t * tile
        count = min(tile, log_probs.positions - lo)
        _take_labels(labels, lo, count, log_probs.classes, label, results.bad, worker)
        for i in range(count):
            at = place(log_probs, lo + i) + max(label[i], 0) * stride
            scratch[LOG_PROB, i] = element(x, at)
        weigh_tile(scratch, label, count, options)
        _give_losses(results, scratch, lo, count)
