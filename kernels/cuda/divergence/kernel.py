"""Divergence kernel of the device, for dense targets and sparse teachers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from numba import cuda, types

from kernels.cuda.divergence.dense import dense_position
from kernels.cuda.divergence.rows import leave_out
from kernels.cuda.divergence.sparse import sparse_position
from kernels.cuda.kinds import TABLE, target


class Arguments(NamedTuple):
    """Arguments of the kernel. Arrays are on the device; unwanted ones are empty.

    ``most`` is the number of classes, ``top`` that of a sparse teacher, or 0; ``unit`` and
    ``target_unit`` are the inverse temperatures. ``sorted``, ``teacher`` and ``student`` are a
    sparse teacher's scratch. The others are those of ``cpu.divergence.dense`` and ``Divergence``.
    """

    most: int
    top: int
    unit: float
    target_unit: float
    mode: int
    beta: float
    tail: int
    factor: float
    upstream: float
    tolerance: float
    logits: Any
    targets: Any
    kept: Any
    weight: Any
    labels: Any
    classes: Any
    log_probs: Any
    losses: Any
    label_log_probs: Any
    target_label_log_probs: Any
    same_top: Any
    gradient: Any
    sorted: Any
    teacher: Any
    student: Any
    status: Any


@lru_cache
def divergence_kernel() -> Any:
    """Kernel that computes a position a block."""
    threads = TABLE.threads  # a constant: the size of a shared array is compiled in

    @target.kernel(threads)
    def compute_divergence(a: Any) -> None:
        values = cuda.shared.array(threads, types.float64)
        position = cuda.blockIdx.x
        if a.kept[position] == 0:
            leave_out(a, position)
        elif a.top > 0:
            sparse_position(a, position, values)
        else:
            dense_position(a, position, values)

    return compute_divergence
