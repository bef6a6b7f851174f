"""Which kernels a piece takes, and in what shape they are launched."""

from __future__ import annotations

from typing import Any, NamedTuple

from kernels.cpu.arguments import View
from kernels.cuda.arguments import Answers, Labels, Rule
from kernels.cuda.careful import careful_kernel
from kernels.cuda.kinds import TABLE, Kind, shape_of, target
from kernels.cuda.nll import nll_kernel
from kernels.cuda.per_class import per_class_kernel
from kernels.cuda.planes import merge_kernel, plane_kernel
from kernels.cuda.rows import block_kernel, lanes_kernel


class Operands(NamedTuple):
    """What the kernels for one piece are told: arrays on the device, in views and tuples."""

    logits: View
    soft: View
    labels: Labels
    rule: Rule
    answers: Answers
    log_probs: View
    gradient: View


def launch(
    kind: Kind, rows: bool, segments: int, normalised: bool, operands: Operands, stream: Any
) -> None:
    """Queues all kernels that a piece takes on ``stream``.

    ``rows``: its classes are contiguous; ``segments`` is ``kinds.segments_of`` them;
    ``normalised``: its logits are log-probabilities.
    """
    o, threads = operands, TABLE.threads
    positions, classes = o.logits.positions, o.logits.classes
    blocks = -(-positions // threads)
    if normalised:
        nll_kernel()[blocks, threads, stream](o.logits, o.labels, o.rule, o.answers)
        return
    shape, inputs = shape_of(classes), (o.logits, o.soft, o.labels, o.rule)
    if not rows:
        kernel = plane_kernel(kind)
        kernel[(blocks, segments), threads, stream](*inputs, o.answers, segments)
    elif shape.lanes <= target.WARP:
        grid = -(-positions // (shape.threads // shape.lanes))
        lanes_kernel(kind, shape)[grid, shape.threads, stream](*inputs, o.answers)
    else:
        kernel = block_kernel(kind, shape.threads)
        kernel[(positions, segments), shape.threads, stream](*inputs, o.answers, segments)
    if segments > 1:
        kernel = merge_kernel(kind)
        kernel[blocks, threads, stream](o.logits, o.labels, o.rule, o.answers, segments)
    per_class = o.log_probs, o.gradient
    kernel = careful_kernel(kind)
    kernel[min(positions, TABLE.odd_blocks), threads, stream](*inputs, o.answers, *per_class)
    if o.rule.per_class:
        parts = -(-classes // TABLE.plane_segment)
        kernel = per_class_kernel(kind, rows)
        kernel[(positions if rows else blocks, parts), threads, stream](
            *inputs, o.answers.state, *per_class
        )
