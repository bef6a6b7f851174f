"""Loss kernels: cross-entropy, and NLL of given log-probabilities.

For each tile: labels are proved; in steps that stay in cache, sums over classes, logarithms and
outputs are computed; class probabilities are proved by their sums; losses are weighed and added in
blocks. Kernels write into the arrays that they are given, allocate nothing and raise nothing.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import inlined, kernel_by_address
from kernels.cpu.careful import weigh_careful
from kernels.cpu.likeliest.greedy import any_greedy, judge_sequences
from kernels.cpu.likeliest.step import finish_likeliest, likeliest_step
from kernels.cpu.outputs.step import output_step
from kernels.cpu.packed import unpacked
from kernels.cpu.plain.losses import is_plain, plain_losses, weigh_plain, write_plain
from kernels.cpu.plain.scratch import LOSS as PLAIN_LOSS
from kernels.cpu.sums.rows import sum_part
from kernels.cpu.sums.step import step_size, sum_step
from kernels.cpu.tile import (
    LOG_PROB,
    LOSS,
    WEIGHT,
    prove_labels,
    prove_shares,
    read_labels,
    take_logarithms,
    weigh_tile,
)
from kernels.plan import place
from kernels.reduce import BLOCK, sum_blocks
from kernels.simd import element, stored_past


@inlined
def _read_proved_labels(
    labels: Any, lo: int, count: int, classes: int, label: Any, bad: Any, share: int
) -> None:
    """Read the tile's labels, proved; the first impossible one goes to ``bad[share]``."""
    read_labels(labels, lo, count, label)
    wrong = prove_labels(label, count, classes, labels)
    if wrong < count and lo + wrong < bad[share]:
        bad[share] = lo + wrong


@inlined
def _reads_again(likeliest: Any, operands: Any) -> bool:
    """Test whether the outputs of a step read its logits after the sums, from cache."""
    if likeliest is None:
        return True
    results = operands.results
    return bool(
        operands.log_probs.data.size
        + operands.gradient.data.size
        + results.entropy.size
        + results.rank.size
        + results.prediction.size
    )


@inlined
def _write_losses(results: Any, scratch: Any, lo: int, count: int) -> None:
    losses, weights = scratch[LOSS], scratch[WEIGHT]
    sum_blocks(losses, weights, count, results.blocks, lo // BLOCK)
    if results.per_element.size:
        out = results.per_element[lo : lo + count]
        for i in range(count):
            out[i] = losses[i]
    if results.losses.size:
        for i in range(count):
            results.losses[lo + i] = losses[i]
            results.weights[lo + i] = weights[i]


@kernel_by_address
def cross_entropy_kernel(share: int, shares: int, packed: Any) -> None:
    """Compute ``share``, of ``shares`` contiguous ones of all tiles. See ``Operands``."""
    operands = unpacked(packed)
    tile, logits, soft, labels, options, results, _, _, scratches, likeliest = operands
    tiles = (logits.positions + tile - 1) // tile
    own = share % scratches.labels.shape[0]
    label, scratch = scratches.labels[own], scratches.tiles[own]
    softly = soft.data.size > 0
    plain, floats = is_plain(logits, soft, labels, options), scratches.floats[own]
    weighed = options.weight.size + labels.sample_weight.size + results.losses.size > 0
    for t in range(tiles * share // shares, tiles * (share + 1) // shares):
        lo = t * tile
        count = min(tile, logits.positions - lo)
        judging = any_greedy(results, lo, count)
        if plain:
            known = plain_losses(operands, lo, count, own)
            if known and not (options.outputs or judging):
                if weighed:
                    weigh_plain(floats, labels, lo, count, options, scratch[LOSS], scratch[WEIGHT])
                    _write_losses(results, scratch, lo, count)
                else:
                    write_plain(results, floats[PLAIN_LOSS], lo, count, options.to_nats)
                continue
        if softly or not labels.given:
            label[:count] = -1
        else:
            _read_proved_labels(labels, lo, count, logits.classes, label, results.bad, share)
        done, begun, odd = 0, 0, False
        while done < count:
            first, rest = lo + done, count - done
            size = step_size(logits, first, rest, options.outputs or judging)
            odd |= sum_step(packed, operands, first, size, label, scratch, done, own)
            likeliest_step(likeliest, packed, operands, first, size, label, scratch, done, own)
            done += size
            if done < count and not (judging or _reads_again(likeliest, operands)):
                continue
            take_logarithms(scratch, begun, done - begun, options.scale, logits.data)
            if options.outputs:
                output_step(operands, lo + begun, done - begun, label, scratch, begun)
                finish_likeliest(likeliest, packed, lo + begun, done - begun, label, scratch, begun)
            begun = done
            if judging:
                judge_sequences(operands, first, size, label, scratch, done - size)
                judging = any_greedy(results, lo + done, count - done)
        if softly and options.tolerance < math.inf:
            wrong = prove_shares(scratch, labels, lo, count, options.tolerance)
            if wrong < count and lo + wrong < results.bad[share]:
                results.bad[share] = lo + wrong
        weigh_tile(scratch, label, softly, labels, lo, count, options)
        if odd:
            weigh_careful(scratch, label, softly, labels, lo, count, options)
        if plain:
            weigh_plain(floats, labels, lo, count, options, scratch[LOSS], scratch[WEIGHT])
        _write_losses(results, scratch, lo, count)
    if options.outputs:
        stored_past()


@kernel_by_address
def nll_kernel(share: int, shares: int, packed: Any) -> None:
    """``cross_entropy_kernel`` for ``logits`` that are log-probabilities already.

    Those of the labels alone are read, and losses are the only outputs.
    """
    tile, logits, _, labels, options, results, _, _, scratches, _ = unpacked(packed)
    tiles = (logits.positions + tile - 1) // tile
    own = share % scratches.labels.shape[0]
    label, scratch = scratches.labels[own], scratches.tiles[own]
    for t in range(tiles * share // shares, tiles * (share + 1) // shares):
        lo = t * tile
        count = min(tile, logits.positions - lo)
        _read_proved_labels(labels, lo, count, logits.classes, label, results.bad, share)
        for i in range(count):
            at = place(logits, lo + i) + max(label[i], 0) * logits.class_stride
            scratch[LOG_PROB, i] = element(logits.data, at)
        weigh_tile(scratch, label, False, labels, lo, count, options)
        _write_losses(results, scratch, lo, count)


@kernel_by_address
def segments_kernel(share: int, shares: int, packed: Any) -> None:
    """Fill ``options.segments``: few long rows of contiguous classes, shared by many threads."""
    operands = unpacked(packed)
    logits, options = operands.logits, operands.options
    count = options.segments.shape[0]
    parts = count // logits.positions
    for i in range(count * share // shares, count * (share + 1) // shares):
        position = i // parts
        first, part = place(logits, position), i - position * parts
        total, shift = sum_part(logits.data, first, logits.classes, part, options, None, 0)
        options.segments[i, 0], options.segments[i, 1] = total, shift
