"""From checked tensors and options to what kernels are told (``arguments``)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kernels import layout
from kernels.cpu import tile
from kernels.cpu.arguments import Labels, Options, View
from kernels.dtypes import DType
from kernels.problem import Array, Problem

# Elements that a copied chunk of an awkward layout holds: enough work for all threads.
CHUNK = 1 << 20
LOG2E = math.log2(math.e)


def view_of(array: Array, axis: int) -> View | None:
    """The kernels' view of ``array`` where it lies, or None where it must be copied."""
    walked = layout.strided(array, axis)
    if walked is None:
        return None
    return View(
        walked.data,
        walked.outer_size * walked.inner_size,
        walked.classes,
        walked.inner_size,
        walked.outer_stride,
        walked.inner_stride,
        walked.class_stride,
    )


def row_view(rows: Array) -> View:
    """The view of ``rows``, a contiguous array of shape (positions, classes)."""
    positions, classes = rows.shape
    return View(rows.reshape(-1), positions, classes, 1, classes, 0, 1)


def no_view(dtype: np.dtype[Any]) -> View:
    """A view of nothing, typed as one of ``dtype``."""
    return row_view(np.empty((0, 1), dtype))


def chunk_rows(classes: int) -> int:
    """Positions a chunk, whole tiles of them."""
    return max(1, CHUNK // classes // tile.LARGEST) * tile.LARGEST


def pieces(problem: Problem) -> Iterator[tuple[int, View, View]]:
    """``(first position, logits, soft)`` for each kernel call that the problem takes."""
    if problem.positions == 0:
        return
    logits, soft = view_of(problem.logits, problem.axis), no_view(problem.dtype.load)
    if problem.soft is not None and logits is not None:
        walked = view_of(problem.soft, problem.axis)
        alike = walked is not None and (walked.class_stride == 1) == (logits.class_stride == 1)
        logits, soft = (logits, walked) if alike and walked is not None else (None, soft)
    if logits is not None:
        yield 0, logits, soft
        return
    first, rows = 0, chunk_rows(problem.classes)
    softs = None if problem.soft is None else layout.chunks(problem.soft, problem.axis, rows)
    for piece in layout.chunks(problem.logits, problem.axis, rows):
        yield first, row_view(piece), soft if softs is None else row_view(next(softs))
        first += len(piece)


def plain_options(dtype: DType) -> Options:
    """The arithmetic's constants where there is nothing but logits of ``dtype``."""
    compute = dtype.result.type
    scale = float(compute(LOG2E))
    nothing = np.empty(0, compute)
    return Options(scale, 1.0 / scale, 1.0, 1.0, 0.0, np.empty(0), nothing, 0.0, False)


def options_of(problem: Problem) -> Options:
    """The arithmetic's constants for ``problem``; see ``Options``."""
    options, classes = plain_options(problem.dtype), problem.classes
    if problem.weight is not None:
        options = options._replace(weight=problem.weight)
    if problem.soft is not None or problem.label_smoothing > 0.0:
        each = np.ones(classes) if problem.weight is None else problem.weight
        options = options._replace(
            keep=1.0 - problem.label_smoothing,
            spread=problem.label_smoothing / classes,
            lane_weight=each.astype(problem.dtype.result),
            mass=float(each.sum()),
        )
    return options._replace(to_nats=1.0) if problem.normalised else options


def labels_of(problem: Problem, first: int, count: int) -> Labels:
    """The kernels' labels for ``count`` positions from ``first`` on."""
    if problem.labels is None:
        return no_labels()
    part = problem.labels[first : first + count]
    size, unsigned, ignore = part.itemsize, part.dtype.kind == "u", problem.ignore_index
    if unsigned and size == 8 and ignore < 0:
        ignore = 2**63 - 1  # what looks negative is a large label, and no class has this one
    labels = no_labels()._replace(
        mask=2 ** (8 * size) - 1 if unsigned and size < 8 else -1, ignore_index=ignore
    )
    return labels._replace(**{f"int{8 * size}s": layout.readable(part.view(f"<i{size}"))})


def no_labels() -> Labels:
    return Labels(*(np.empty(0, f"<i{size}") for size in (1, 2, 4, 8)), -1, -1)
