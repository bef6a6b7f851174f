"""A planned loss in one call from Python: arrays are compared with the plan's, the kernel runs, and
the loss is written to an array.

In Python these took 2 us, and the kernel of 4 x 5 takes 0.25 us.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from kernels.compiled import inlined, kernel, short_kernel
from kernels.cpu.arguments import Operands
from kernels.cpu.launch.objects import OBJECT, Layout, address, layout_of, lies_as, memory_of, put
from kernels.cpu.launch.threads import call_kernel, code_of, compile_kernel, run_many
from kernels.cpu.packed import Packed, PackedOperands, pack, unpacked
from kernels.plan import Array
from kernels.reduce import SCALE, add_blocks, sum_blocks

# Results of a ``Call``: the loss is written; an array is not the plan's; the mean is over nothing,
# and the blocks are written. Others are the position of the first impossible label.
DONE, OTHER, NO_MEAN = -1, -2, -3
# Logits of a loss that keeps the GIL: its kernel takes about 1 us, and to let others have the GIL
# takes 50 ns.
SHORT = 4096


class Plan(NamedTuple):
    """Arguments of the call that are the same each time.

    ``code`` is the kernel's address, ``operands`` that of its packed operands, in which the words
    ``slot`` and ``other_slot`` hold the addresses of logits and labels. ``blocks`` and ``bad`` are
    of ``Results``; ``alone`` has the losses and weights that blocks are summed of, where positions
    are ``shared``. ``mean`` tells from a sum, and ``double`` from float32.
    """

    code: int
    operands: int
    slot: int
    other_slot: int
    logits: Layout
    labels: Layout
    blocks: Any
    bad: Any
    positions: int
    alone: Any
    mean: bool
    double: bool


@inlined
def _point(plan: Any, logits: int, labels: int) -> bool:
    """Point the packed operands at the arrays; False if these are other ones than planned."""
    if not (lies_as(logits, plan.logits) and lies_as(labels, plan.labels)):
        return False
    put(plan.slot, memory_of(logits))
    put(plan.other_slot, memory_of(labels))
    return True


@inlined
def _finish(plan: Any, result: int) -> int:
    """Write the loss to the array at ``result``."""
    wrong = plan.positions
    for i in range(plan.bad.size):
        wrong = min(wrong, plan.bad[i])
        plan.bad[i] = plan.positions
    if wrong < plan.positions:
        return wrong
    if plan.alone.size:
        sum_blocks(plan.alone[0], plan.alone[1], plan.positions, plan.blocks, 0)
    total, weight = add_blocks(plan.blocks)
    if plan.mean and weight == 0.0:
        return NO_MEAN
    loss = total / weight if plan.mean else total / SCALE
    if plan.double:
        put(memory_of(result), loss)
    else:
        put(memory_of(result), np.float32(loss))
    return DONE


@inlined
def _whole(packed: Any, logits: Any, labels: Any, result: Any) -> int:
    plan = unpacked(packed)
    if not _point(plan, address(logits), address(labels)):
        return OTHER
    call_kernel(plan.code, 0, 1, plan.operands)
    return _finish(plan, address(result))


@short_kernel
def _short(packed: Any, logits: Any, labels: Any, result: Any) -> int:
    return _whole(packed, logits, labels, result)


@kernel
def _long(packed: Any, logits: Any, labels: Any, result: Any) -> int:
    return _whole(packed, logits, labels, result)


@kernel
def _begin(packed: Any, logits: Any, labels: Any) -> bool:
    return _point(unpacked(packed), address(logits), address(labels))


@kernel
def _end(packed: Any, result: Any) -> int:
    return _finish(unpacked(packed), address(result))


class Call(NamedTuple):
    """A planned loss: ``run`` takes ``plan``, an address, logits, labels and an array for the loss.

    ``kept`` is the memory that it reads.
    """

    run: Callable[[int, Any, Any, Array], int]
    plan: int
    kept: tuple[PackedOperands, ...]


def call_of(
    kernel: Any,
    key: tuple[Any, ...],
    workers: int,
    operands: Operands,
    arrays: tuple[Array, Array],
    alone: Array,
    mean: bool,
) -> Call:
    """Call of ``kernel`` on ``workers`` for the same operands again and again, but for two of their
    ``arrays``, the logits and the labels: each call gets others of the same layouts.
    """
    code = code_of(kernel, key, operands)
    packed = PackedOperands(code.pack, operands)
    logits, labels = arrays
    plan = Plan(
        code.address,
        packed.address,
        packed.slot(logits),
        packed.slot(labels),
        layout_of(logits),
        layout_of(labels),
        operands.results.blocks,
        operands.results.bad,
        operands.logits.positions,
        alone,
        mean,
        operands.results.per_element.dtype == np.float64,
    )
    kind = numba.typeof(plan)
    own = PackedOperands(compile_kernel(pack, (kind, types.intp)).entry_point, plan)
    objects = (Packed(kind), OBJECT, OBJECT)
    if workers == 1:
        whole = _short if logits.size <= SHORT else _long
        call = compile_kernel(whole, (*objects, OBJECT)).entry_point
        return Call(call, own.address, (own, packed))
    begin = compile_kernel(_begin, objects).entry_point
    end = compile_kernel(_end, (Packed(kind), OBJECT)).entry_point

    def run(plan: int, logits: Any, labels: Any, result: Array) -> int:
        if not begin(plan, logits, labels):
            return OTHER
        run_many(code.address, workers, 0, workers, packed.address)
        status: int = end(plan, result)
        return status

    return Call(run, own.address, (own, packed))
