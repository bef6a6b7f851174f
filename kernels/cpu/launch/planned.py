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
from kernels.cpu.launch.loss import SERIAL, Launch, threads_of
from kernels.cpu.launch.objects import (
    OBJECT,
    Layout,
    address,
    get,
    item_of,
    layout_of,
    lies_as,
    memory_of,
    put,
)
from kernels.cpu.launch.threads import call_kernel, code_of, compile_kernel, compiled, run_many
from kernels.cpu.packed import Packed, PackedOperands, pack, unpacked
from kernels.plan import TABLE, Array
from kernels.problem import Problem
from kernels.reduce import SCALE, add_blocks, sum_blocks

# Results of ``Ready.run``: the loss is written; an array, or the number of threads, is not the
# plan's; the mean is over nothing, and the blocks are written. Others are the position of the first
# impossible label.
DONE, OTHER, NO_MEAN = -1, -2, -3
# Logits of a loss that keeps the GIL: its kernel takes about 1 us, and to let others have the GIL
# takes 50 ns.
SHORT = 4096
_TERMS, _NONE = ("losses", "weights"), np.empty(0)
# Outputs that are made when the kernel is done, after the one that the first of them is made of.
_MADE = ("per_element", "sequence_loss", "count", "weight_sum", "loss_sum")


class Plan(NamedTuple):
    """Arguments of the call that are the same each time.

    ``code`` is the kernel's address, ``operands`` that of its packed operands, in which the words
    ``slot`` and ``other_slot`` hold the addresses of logits and labels, and those at the addresses
    ``slots`` the addresses of the arrays that each call has of its own. ``blocks`` and ``bad`` are
    of ``Results``; ``summands`` are the losses and the weights that blocks are summed of, or empty
    where the kernel does that. ``mean`` tells from a sum, and ``double`` from float32. ``places``
    are those of ``_MADE`` among the call's own arrays, -1 where one is not wanted; there are so
    many ``rows``, or sequences.
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
    places: Any
    rows: int


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
        if plan.slots[i] != 0:
            put(plan.slots[i], memory_of(item_of(own, i)))
    return True


@inlined
def _sum_rows(plan: Any, values: int, sums: int) -> None:
    """Write what ``reduce.sum_rows`` does; both arguments are addresses of arrays."""
    source, target, each = memory_of(values), memory_of(sums), plan.positions // plan.rows
    for row in range(plan.rows):
        total = 0.0
        for i in range(row * each, (row + 1) * each):
            if plan.double:
                total += get(source + 8 * i, 0.0)
            else:
                total += get(source + 4 * i, np.float32(0.0))
        put(target + 8 * row, total)


@inlined
def _make(plan: Any, own: int, total: float, weight: float) -> None:
    """Write the arrays of ``_MADE``; losses and weights are SCALE times their sums."""
    per_element, by_sequence, count, weight_sum, loss_sum = plan.places
    if by_sequence >= 0:
        _sum_rows(plan, item_of(own, per_element), item_of(own, by_sequence))
    if count >= 0:  # each position that counts weighs 1
        put(memory_of(item_of(own, count)), int(weight / SCALE))
    if weight_sum >= 0:
        put(memory_of(item_of(own, weight_sum)), weight / SCALE)
    if loss_sum >= 0:
        put(memory_of(item_of(own, loss_sum)), total / SCALE)


@inlined
def _finish(plan: Any, own: int, result: int) -> int:
    """Write the loss to the array at ``result``, and what is ``_MADE`` to items of ``own``."""
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
    _make(plan, own, total, weight)
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
    return _finish(plan, address(own), address(result))


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
def _end(packed: Any, own: Any, result: Any) -> int:
    return _finish(unpacked(packed), address(own), address(result))


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


def _made(problem: Problem, wanted: tuple[str, ...]) -> dict[str, Array]:
    """Arrays for those of ``wanted`` that are made when the kernel is done."""
    each = ("sequence_loss",) if problem.segments is None else ()
    arrays: dict[str, Array] = {
        name: np.empty(problem.sequences.shape) for name in each if name in wanted
    }
    scalars = [name for name in _MADE[2:] if name in wanted]
    return {**arrays, **{name: np.empty((), TABLE[name].dtype) for name in scalars}}


def ready(
    problem: Problem, wanted: tuple[str, ...], launch: Launch, logits: Array, labels: Array
) -> Ready | None:
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
    judged = own.pop("sequence_greedy", None)
    made = _made(problem, wanted)
    own |= made
    if judged is not None:
        own["sequence_greedy"] = judged
    if outputs.sequence is not None and problem.segments is not None:
        own["sequence"] = outputs.sequence
    if problem.chosen is not None and operands.likeliest is not None:
        own["chosen"] = problem.chosen
    code = code_of(launch.kernel, launch.key, operands)
    packed, names = PackedOperands(code.pack, operands), list(own)
    slots = [0 if name in made else packed.slot(array) for name, array in own.items()]
    plan = Plan(
        code.address,
        packed.address,
        packed.slot(logits),
        packed.slot(labels),
        np.array(slots, np.int64),
        layout_of(logits),
        layout_of(labels),
        outputs.blocks,
        operands.results.bad,
        operands.logits.positions,
        (losses, weights),
        problem.reduction == "mean",
        operands.results.per_element.dtype == np.float64,
        tuple([names.index(name) if name in own else -1 for name in _MADE]),
        problem.shape[0] if problem.shape else 1,
    )
    kind = numba.typeof(plan)
    planned = PackedOperands(compile_kernel(pack, (kind, types.intp)).entry_point, plan)
    run = _run_of(kind, code.address, launch.workers, packed.address, logits.size)
    return Ready(run, planned.address, outputs.blocks, own, kept, (planned, packed))


def _run_of(kind: Any, code: int, workers: int, operands: int, elements: int) -> Any:
    """``Ready.run`` for a ``Plan`` of the type ``kind``, of so many logits."""
    objects, threads = (Packed(kind), OBJECT, OBJECT, OBJECT), threads_of(elements)
    if workers == 1:
        alone = _short if elements <= SHORT else _long
        whole = compile_kernel(alone, (*objects, OBJECT)).entry_point
        if elements <= SERIAL:
            return whole
    else:
        begin = compile_kernel(_begin, objects).entry_point
        end = compile_kernel(_end, (Packed(kind), OBJECT, OBJECT)).entry_point

    def run(plan: int, logits: Any, labels: Any, own: tuple[Array, ...], result: Array) -> int:
        # To ask for it takes 0.7 us, a loss of so many logits 15 and more.
        if threads_of(elements) != threads:
            return OTHER
        if workers == 1:
            status: int = whole(plan, logits, labels, own, result)
        elif begin(plan, logits, labels, own):
            run_many(code, workers, 0, workers, operands)
            status = end(plan, own, result)
        else:
            status = OTHER
        return status

    return run
