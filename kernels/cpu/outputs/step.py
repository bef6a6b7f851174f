"""Outputs beside the loss, for a step of positions that was just summed."""

from __future__ import annotations

from typing import Any

from kernels.compiled import inlined
from kernels.cpu.careful import careful_known, careful_outputs
from kernels.cpu.outputs.planes import (
    entropies,
    predictions,
    ranks,
    write_gradient_abreast,
    write_log_probs_abreast,
)
from kernels.cpu.outputs.rows import (
    entropy,
    prediction,
    rank,
    write_gradient,
    write_log_probs,
    write_zeros,
)
from kernels.cpu.tile import (
    CAREFUL,
    EXPECTED,
    LEAN,
    LOG2,
    LOG_PROB,
    MASS,
    OWN,
    PULL,
    PUSH,
    SMOOTH,
    log_sum_exp,
)
from kernels.formula import TINY, Known, gradient_factors, sample_of
from kernels.simd import width


@inlined
def _weigh_gradient(operands: Any, lo: int, count: int, label: Any, scratch: Any, at: int) -> None:
    """Write PUSH, PULL, OWN and LEAN, ``formula.gradient_factors``."""
    options, softly = operands.options, operands.soft.data.size > 0
    for i in range(at, at + count):
        known = Known(
            scratch[LOG_PROB, i],
            scratch[LOG2, i],
            log_sum_exp(scratch, i, options),
            scratch[MASS, i],
            scratch[SMOOTH, i],
            scratch[EXPECTED, i],
        )
        if scratch[CAREFUL, i] != 0.0:
            known = careful_known(known, scratch, softly, i, options)
        sample = sample_of(operands.labels, lo + i - at)
        push, pull, own, lean = gradient_factors(known, label[i], softly, sample, options)
        scratch[PUSH, i], scratch[PULL, i], scratch[OWN, i] = push, pull, own
        scratch[LEAN, i] = lean


@inlined
def _row_outputs(operands: Any, position: int, y: int, scratch: Any, at: int) -> None:
    logits, soft, options = operands.logits, operands.soft, operands.options
    log_probs, gradient, results = operands.log_probs, operands.gradient, operands.results
    if log_probs.data.size:
        write_log_probs(logits, log_probs, position, scratch, at, options)
    if gradient.data.size and y < 0 and not soft.data.size:
        write_zeros(gradient, position)
    elif gradient.data.size:
        write_gradient(logits, soft, gradient, position, y, scratch, at, options)
    if results.entropy.size:
        results.entropy[position] = entropy(logits, position, scratch, at, options)
    if results.rank.size:
        results.rank[position] = -1
        if y >= 0:
            results.rank[position] = rank(logits, position, y)
    if results.prediction.size:
        results.prediction[position] = prediction(logits, position)


@inlined
def _plane_outputs(
    operands: Any, position: int, count: int, label: Any, scratch: Any, at: int
) -> None:
    logits, soft, options = operands.logits, operands.soft, operands.options
    log_probs, gradient, results = operands.log_probs, operands.gradient, operands.results
    if log_probs.data.size:
        write_log_probs_abreast(logits, log_probs, position, count, scratch, at, options)
    if gradient.data.size:
        write_gradient_abreast(logits, soft, gradient, position, count, label, scratch, at, options)
    if results.entropy.size:
        entropies(logits, position, count, scratch, at, options, results.entropy)
    if results.rank.size:
        ranks(logits, position, count, label, scratch, at, results.rank)
        for i in range(count):
            if label[at + i] < 0:
                results.rank[position + i] = -1
    if results.prediction.size:
        predictions(logits, position, count, scratch, results.prediction)


@inlined
def output_step(operands: Any, lo: int, count: int, label: Any, scratch: Any, at: int) -> None:
    """Write the outputs of ``count`` positions from ``lo`` on; ``scratch`` from ``at`` on."""
    logits, results = operands.logits, operands.results
    if operands.gradient.data.size:
        _weigh_gradient(operands, lo, count, label, scratch, at)
    if results.log_sum_exp.size:
        for i in range(count):
            results.log_sum_exp[lo + i] = log_sum_exp(scratch, at + i, operands.options) / TINY
    if logits.class_stride == 1:
        for i in range(count):
            if scratch[CAREFUL, at + i] == 0.0:
                _row_outputs(operands, lo + i, label[at + i], scratch, at + i)
    else:
        step = width(logits.data)
        for i in range(0, count, step):
            few = min(count - i, step)
            _plane_outputs(operands, lo + i, few, label, scratch, at + i)
    for i in range(count):
        if scratch[CAREFUL, at + i] != 0.0:
            careful_outputs(operands, lo + i, label[at + i], scratch, at + i)
