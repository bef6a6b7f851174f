"""Launches of the kernels for a piece, and their shapes."""

from __future__ import annotations

from typing import Any, NamedTuple

from kernels.cuda.arguments import Labels, Likeliest, Options, Results
from kernels.cuda.kinds import TABLE, Kind, shape_of, target
from kernels.cuda.loss.binary import binary_kernel
from kernels.cuda.loss.careful import careful_kernel
from kernels.cuda.loss.nll import nll_kernel
from kernels.cuda.loss.planes import merge_kernel, plane_kernel
from kernels.cuda.loss.rows import block_kernel, lanes_kernel
from kernels.cuda.outputs.likeliest import likeliest_kernel
from kernels.cuda.outputs.per_class import per_class_kernel
from kernels.plan import View


class Operands(NamedTuple):
    """Arguments of the kernels for one piece: arrays on the device, in views and tuples."""

    logits: View
    soft: View
    labels: Labels
    options: Options
    results: Results
    log_probs: View
    gradient: View
    likeliest: Likeliest | None


def launch(
    kind: Kind, rows: bool, segments: int, operation: str, operands: Operands, stream: Any
) -> None:
    """Queue all kernels for a piece on ``stream``.

    ``rows``: its classes are contiguous; ``segments`` is ``kinds.segments_of`` them;
    ``operation`` is ``Problem.operation``.
    """
    o, threads = operands, TABLE.threads
    positions, classes = o.logits.positions, o.logits.classes
    blocks = -(-positions // threads)
    if operation == "binary_cross_entropy":
        binary_kernel()[blocks, threads, stream](
            o.logits, o.soft, o.labels, o.options, o.results, o.gradient
        )
        return
    if operation == "nll_loss":
        nll_kernel()[blocks, threads, stream](o.logits, o.labels, o.options, o.results)
        return
    shape, inputs = shape_of(classes), (o.logits, o.soft, o.labels, o.options)
    if not rows:
        kernel = plane_kernel(kind)
        kernel[(blocks, segments), threads, stream](*inputs, o.results, segments)
    elif shape.lanes <= target.WARP:
        grid = -(-positions // (shape.threads // shape.lanes))
        lanes_kernel(kind, shape)[grid, shape.threads, stream](*inputs, o.results)
    else:
        kernel = block_kernel(kind, shape.threads)
        kernel[(positions, segments), shape.threads, stream](*inputs, o.results, segments)
    if segments > 1:
        kernel = merge_kernel(kind)
        kernel[blocks, threads, stream](*inputs, o.results, segments)
    per_class = o.log_probs, o.gradient
    kernel = careful_kernel(kind)
    kernel[min(positions, TABLE.odd_blocks), threads, stream](*inputs, o.results, *per_class)
    if o.log_probs.data.size or o.gradient.data.size:
        parts = -(-classes // TABLE.plane_segment)
        kernel = per_class_kernel(kind, rows)
        kernel[(positions if rows else blocks, parts), threads, stream](
            *inputs, o.results.state, *per_class
        )
    if o.likeliest is not None:
        kernel = likeliest_kernel(kind)
        state = o.results.state
        kernel[positions, threads, stream](o.logits, o.labels, o.options, state, o.likeliest)
