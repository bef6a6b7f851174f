"""Kernels without a softmax: NLL of given log-probabilities, and the block sums."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba import cuda

from kernels.cuda.kinds import TABLE, target
from kernels.cuda.loss.position import label_of, leave_out, loss_of, place, sample_of
from kernels.formula import Known
from kernels.reduce import BLOCK, SCALE

device, element = target.device, target.element


@lru_cache
def nll_kernel() -> Any:
    """Kernel that reads each label's log-probability, and no other."""

    @target.kernel(TABLE.threads)
    def take_log_probs(logits: Any, labels: Any, options: Any, results: Any) -> None:
        position = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if position >= logits.positions:
            return
        y = label_of(labels, position, logits.classes)
        if y < 0:
            leave_out(position, y, options, results)
            return
        at = place(logits, position) + y * logits.class_stride
        known = Known(float(element(logits.data, at)), 0.0, 0.0, 0.0, 0.0, 0.0)
        sample = sample_of(labels, position)
        loss, weight = loss_of(known, y, False, sample, options)
        results.losses[position], results.weights[position] = loss, weight
        if results.per_element.size:
            results.per_element[position] = loss

    return take_log_probs


@device
def given(values: Any, at: int) -> float:
    """``SCALE * values[at]``, or 0 after the last."""
    return SCALE * values[at] if at < values.size else 0.0


@device
def every_eighth(values: Any, at: int) -> float:
    """Sum of four values, eight apart."""
    low = given(values, at) + given(values, at + 8)
    return low + (given(values, at + 16) + given(values, at + 24))


@device
def block_sum(values: Any, at: int) -> float:
    """SCALE times the sum of BLOCK values from ``at`` on, in the order of ``reduce._block_sum``."""
    even = every_eighth(values, at) + every_eighth(values, at + 4)
    even += every_eighth(values, at + 2) + every_eighth(values, at + 6)
    odd = every_eighth(values, at + 1) + every_eighth(values, at + 5)
    odd += every_eighth(values, at + 3) + every_eighth(values, at + 7)
    return even + odd


@lru_cache
def blocks_kernel() -> Any:
    """Kernel that adds losses and weights within blocks of BLOCK: a thread a block."""

    @target.kernel(TABLE.threads)
    def sum_blocks(losses: Any, weights: Any, blocks: Any) -> None:
        block = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if block < blocks.shape[0]:
            blocks[block, 0] = block_sum(losses, block * BLOCK)
            blocks[block, 1] = block_sum(weights, block * BLOCK)

    return sum_blocks
