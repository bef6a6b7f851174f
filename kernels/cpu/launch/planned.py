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
from kernels.cpu.launch.loss import Launch
from kernels.cpu.launch.objects import (
    OBJECT,
    Layout,
    address,
    item_of,
    layout_of,
    lies_as,
    memory_of,
    put,
)
from kernels.cpu.launch.threads import call_kernel, code_of, compile_kernel, compiled, run_many
from kernels.cpu.packed import Packed, PackedOperands, pack, unpacked
from kernels.plan import Array
from kernels.problem import Problem
from kernels.reduce import SCALE, add_blocks, sum_blocks

# Results of ``Ready.run``: the loss is written; an array is not the plan's; the mean is over
# nothing, and the blocks are written. Others are the position of the first impossible label.
DONE, OTHER, NO_MEAN = -1, -2, -3
# Logits of a loss that keeps the GIL: its kernel takes about 1 us, and to let others have the GIL
# takes 50 ns.
SHORT = 4096
_TERMS, _NONE = ("losses", "weights"), np.empty(0)


class Plan(NamedTuple):
    """Arguments of the call that are the same each time.

    ``code`` is the kernel's address, ``operands`` that of its packed operands, in which the words
    ``slot`` and ``other_slot`` hold the addresses of logits and labels, and those at the addresses
    ``slots`` the addresses of the arrays that each call has of its own. ``blocks`` and ``bad`` are
    of ``Results``; ``summands`` are the losses and the weights that blocks are summed of, or empty
    where the kernel does that. ``mean`` tells from a sum, and ``double`` from float32.
    """

    code: int
    operands: int
    slot: int
    other_slot: int
    slots: Any
    logits: Layout
    labels: Layout
    blocks: Any
    bad: Any
    positions: int
    summands: Any
    mean: bool
    double: bool


@inlined
def _point(plan: Any, logits: int, labels: int, own: int) -> bool:
    """Point the packed operands at the arrays, and at the items of the tuple ``own``; False if
    logits or labels are other ones than planned.
    """
    if not (lies_as(logits, plan.logits) and lies_as(labels, plan.labels)):
        return False
    put(plan.slot, memory_of(logits))
    put(plan.other_slot, memory_of(labels))
    for i in range(plan.slots.size):
        put(plan.slots[i], memory_of(item_of(own, i)))
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
    losses, weights = plan.summands
    if losses.size:
        sum_blocks(losses, weights, plan.positions, plan.blocks, 0)
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
def _whole(packed: Any, logits: Any, labels: Any, own: Any, result: Any) -> int:
    plan = unpacked(packed)
    if not _point(plan, address(logits), address(labels), address(own)):
        return OTHER
    call_kernel(plan.code, 0, 1, plan.operands)
    return _finish(plan, address(result))


@short_kernel
def _short(packed: Any, logits: Any, labels: Any, own: Any, result: Any) -> int:
    return _whole(packed, logits, labels, own, result)


@kernel
def _long(packed: Any, logits: Any, labels: Any, own: Any, result: Any) -> int:
    return _whole(packed, logits, labels, own, result)


@kernel
def _begin(packed: Any, logits: Any, labels: Any, own: Any) -> bool:
    return _point(unpacked(packed), address(logits), address(labels), address(own))


@kernel
def _end(packed: Any, result: Any) -> int:
    return _finish(unpacked(packed), address(result))


class Ready(NamedTuple):
    """A loss that is ready to be computed again and again.

    ``run`` takes ``plan``, an address, logits, labels, a tuple of arrays like ``own``, which are
    written, and one for the loss. It writes ``blocks`` and the ``kept`` arrays as well. ``memory``
    is what it reads.
    """

    run: Callable[[int, Any, Any, tuple[Array, ...], Array], int]
    plan: int
    blocks: Array
    own: dict[str, Array]
    kept: dict[str, Array]
    memory: tuple[PackedOperands, ...]


def ready(problem: Problem, launch: Launch, logits: Array, labels: Array) -> Ready | None:
    """A call that launches ``launch`` for arrays that lie as these, of which ``problem`` is made.

    None where the kernel is not compiled yet, since callers may have no time for that.
    """
    if not compiled(launch.kernel, launch.key):
        return None
    operands, outputs = launch.operands, launch.outputs
    own = {**outputs.likeliest.arrays(), **outputs.arrays}
    # Positions that threads share are added up when the kernel is done.
    kept: dict[str, Array] = {name: own.pop(name) for name in _TERMS if name in own}
    losses, weights = kept.values() if outputs.shared else (_NONE, _NONE)
    if outputs.sequence is not None and problem.segments is not None:
        own["sequence"] = outputs.sequence
    if problem.chosen is not None and operands.likeliest is not None:
        own["chosen"] = problem.chosen
    code = code_of(launch.kernel, launch.key, operands)
    packed = PackedOperands(code.pack, operands)
    plan = Plan(
        code.address,
        packed.address,
        packed.slot(logits),
        packed.slot(labels),
        np.array([packed.slot(array) for array in own.values()], np.int64),
        layout_of(logits),
        layout_of(labels),
        outputs.blocks,
        operands.results.bad,
        operands.logits.positions,
        (losses, weights),
        problem.reduction == "mean",
        operands.results.per_element.dtype == np.float64,
    )
    kind = numba.typeof(plan)
    planned = PackedOperands(compile_kernel(pack, (kind, types.intp)).entry_point, plan)
    run = _run_of(kind, code.address, launch.workers, packed.address, logits.size <= SHORT)
    return Ready(run, planned.address, outputs.blocks, own, kept, (planned, packed))


def _run_of(kind: Any, code: int, workers: int, operands: int, short: bool) -> Any:
    """``Ready.run`` for a ``Plan`` of the type ``kind``."""
    objects = (Packed(kind), OBJECT, OBJECT, OBJECT)
    if workers == 1:
        return compile_kernel(_short if short else _long, (*objects, OBJECT)).entry_point
    begin = compile_kernel(_begin, objects).entry_point
    end = compile_kernel(_end, (Packed(kind), OBJECT)).entry_point

    def run(plan: int, logits: Any, labels: Any, own: tuple[Array, ...], result: Array) -> int:
        if not begin(plan, logits, labels, own):
            return OTHER
        run_many(code, workers, 0, workers, operands)
        status: int = end(plan, result)
        return status

    return run
