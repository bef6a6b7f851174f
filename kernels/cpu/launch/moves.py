"""Labels of a planned loss, moved by ``shift`` to the logits that score them, and left out by
``mask``.

That is what ``sequences.at_logits`` does, in one call of compiled code: NumPy takes some ten, which
took 0.1 ms after a loss that put their code out of the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from kernels.compiled import inlined, kernel
from kernels.cpu.arguments import Labels
from kernels.cpu.launch.objects import OBJECT, Layout, address, layout_of, lies_as, memory_of, put
from kernels.cpu.launch.threads import compile_kernel
from kernels.cpu.launch.views import NO_LABELS, integers
from kernels.cpu.packed import Packed, PackedOperands, pack, unpacked
from kernels.plan import Array
from kernels.problem import Problem


class _Moves(NamedTuple):
    """Arguments that are the same each time, but for the memory of ``labels`` and ``mask``.

    Each row of ``row`` labels is moved by ``shift``. ``into`` holds ``ignore_index`` where no
    label comes to lie; ``counts`` are the labels of each row that are not ignored.
    """

    layout: Layout
    labels: Labels
    mask_layout: Layout
    mask: Labels
    row: int
    shift: int
    ignore_index: int
    into: Any
    counts: Any


@inlined
def _integer(integers: Any, i: int) -> int:
    if integers.int64s.size:
        return integers.int64s[i]
    if integers.int32s.size:
        return integers.int32s[i] & integers.mask
    if integers.int16s.size:
        return integers.int16s[i] & integers.mask
    return integers.int8s[i] & integers.mask


@inlined
def _write(moves: Any, masked: bool) -> None:
    row, into = moves.row, moves.into
    first, last = max(moves.shift, 0), row + min(moves.shift, 0)
    for start in range(0, into.size, row):
        count = 0
        for i in range(start + first, start + last):
            kept = not masked or _integer(moves.mask, i) != 0
            label = _integer(moves.labels, i) if kept else moves.ignore_index
            into[i - moves.shift] = label
            count += label != moves.ignore_index
        moves.counts[start // row] = count


@kernel
def _move(packed: Any, slot: int, mask_slot: int, labels: Any, mask: Any) -> bool:
    moves = unpacked(packed)
    if not lies_as(address(labels), moves.layout):
        return False
    if mask_slot != 0 and not lies_as(address(mask), moves.mask_layout):
        return False
    put(slot, memory_of(address(labels)))
    if mask_slot != 0:
        put(mask_slot, memory_of(address(mask)))
    _write(unpacked(packed), mask_slot != 0)
    return True


class MovedLabels(NamedTuple):
    """``labels``, int64 where the logits lie, that ``write`` makes of a call's labels and mask.

    ``counts`` has the number of labels of each index of the first axis that are not ignored.
    ``write`` returns False for other arrays than planned.
    """

    labels: Array
    counts: Array
    write: Callable[[Any, Any], bool]


def moved_labels(problem: Problem, labels: Array, mask: Array | None) -> MovedLabels:
    """``MovedLabels`` for arrays that lie as these two; ``problem`` has the shift."""
    shape, shift = labels.shape, problem.shift
    row = math.prod(shape[1:])
    into = np.full(labels.size, problem.ignore_index, np.int64)
    counts = np.zeros(shape[:1], np.int64)
    given = NO_LABELS if mask is None else NO_LABELS._replace(**integers(mask.reshape(-1)))
    moves = _Moves(
        layout_of(labels),
        NO_LABELS._replace(**integers(labels.reshape(-1))),
        layout_of(labels if mask is None else mask),
        given,
        row,
        shift * (row // shape[1]) if shift else 0,
        problem.ignore_index,
        into,
        counts.reshape(-1),
    )
    kind = numba.typeof(moves)
    packed = PackedOperands(compile_kernel(pack, (kind, types.intp)).entry_point, moves)
    slot, mask_slot = packed.slot(labels), 0 if mask is None else packed.slot(mask)
    code = compile_kernel(_move, (Packed(kind), types.intp, types.intp, OBJECT, OBJECT)).entry_point

    def write(labels: Any, mask: Any) -> bool:
        moved: bool = code(packed.address, slot, mask_slot, labels, mask)
        return moved

    return MovedLabels(into, counts, write)
