"""Plans of small losses, kept by dtypes, shapes and options.

A loss of 4 x 5 takes 25 us of Python that checks it and makes the kernel's operands, and 1 us of
kernel. A plan makes the operands once; each call writes its arrays' addresses into them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kernels.answer import answers_of, impossible_label, reduced, wanted
from kernels.cpu.launch import ready
from kernels.errors import InvalidInput
from kernels.plan import TABLE, ImpossibleLabel, Kind
from kernels.problem import Array, check

# Logits of a loss that takes no lane, and of any: larger ones take milliseconds, and a plan saves
# some 25 us.
SMALL, LARGEST = 4096, 2**22
# Positions: a plan keeps 16 bytes for each block of 32.
MOST_POSITIONS = 2**18
_PLANNED = frozenset(
    name
    for name, row in TABLE.items()
    if (row.kind is Kind.SCALAR and not (row.requires or row.made_of)) or name == "per_element"
)
# Plans that a thread keeps; it drops all of them before it adds one more.
MOST = 64


class _Kept(threading.local):
    """This thread's plans by key; None: the key was seen once, or cannot be planned.

    ``last`` is the key and the plan of the last call: to hash a key takes 0.5 us, to compare two
    that are made of the same objects 0.1 us.
    """

    def __init__(self) -> None:
        self.plans: dict[Any, _Plan | None] = {}
        self.last: tuple[Any, _Plan | None] = (None, None)

    def clear(self) -> None:
        """Drop all plans."""
        self.__init__()  # type: ignore[misc]


_KEPT = _Kept()


class _Plan:
    """Losses of class indices, of one shape, dtype and set of options and outputs."""

    def __init__(
        self, logits: Array, labels: Array, outputs: Sequence[str], options: Mapping[str, Any]
    ) -> None:
        # In C order, in whatever order the first call's arrays are: else the problem holds copies.
        logits = np.empty(logits.shape, logits.dtype)
        self._labels = np.zeros(labels.shape, labels.dtype)
        self._problem = check(logits, self._labels, **options)
        self._names = wanted(self._problem, outputs)
        self._compute = ready(self._problem, self._names)
        self._loss_alone = self._names == ("loss",)

    @property
    def compiled(self) -> bool:
        """False where ``launch.ready`` has no call."""
        return self._compute is not None

    def answers(self, logits: Array, labels: Array) -> dict[str, Array]:
        """Compute the losses. Raises ``InvalidInput``."""
        assert self._compute is not None
        flags = labels.flags
        if not (flags.c_contiguous and flags.aligned):
            self._labels[...] = labels
            labels = self._labels
        try:
            total, weight, blocks, arrays = self._compute(logits, labels)
        except ImpossibleLabel as error:
            raise self._impossible_label(labels, error.position) from None
        if self._loss_alone:
            return {"loss": reduced(self._problem, total, weight)}
        # The next call writes to the same arrays.
        own = {name: array.copy() for name, array in arrays.items()}
        return answers_of(self._problem, self._names, blocks, own)

    def _impossible_label(self, labels: Array, position: int) -> InvalidInput:
        return impossible_label(replace(self._problem, labels=labels.reshape(-1)), position)


def answers(
    logits: Any,
    labels: Any,
    outputs: tuple[str, ...],
    options: tuple[str, ...],
    values: tuple[Any, ...],
    largest: int = SMALL,
) -> dict[str, Array] | None:
    """Compute ``cross_entropy`` by a plan, where this thread has one for such a loss; else None.

    That is on the CPU, for at most ``largest`` logits, and ``options`` with these ``values``. The
    dict has all of ``outputs``, and may have more. Raises ``InvalidInput``.
    """
    if type(logits) is not np.ndarray or type(labels) is not np.ndarray:
        return None
    flags = logits.flags
    if not (0 < logits.size <= largest and flags.c_contiguous and flags.aligned):
        return None
    # 1.0 == 1, but 1.0 is no index. Types come first: a number is not compared with an array.
    kinds, shapes = tuple(map(type, values)), (logits.shape, labels.shape)
    key = (logits.dtype, labels.dtype, shapes, outputs, kinds, values, options)
    last, plan = _KEPT.last
    if key != last or plan is None:
        plan = _find(key, logits, labels, outputs, dict(zip(options, values, strict=True)))
    return None if plan is None else plan.answers(logits, labels)


def _find(
    key: Any, logits: Array, labels: Array, names: Sequence[str], options: Mapping[str, Any]
) -> _Plan | None:
    """Plan for ``key``, made when it is seen a second time; None where there can be none."""
    plans = _KEPT.plans
    try:
        plan = plans[key]
    except KeyError:
        if len(plans) >= MOST:
            _KEPT.clear()
        _KEPT.plans[key] = None
        return None
    except TypeError:  # weights, or an option that is no option
        return None
    if plan is None:
        planned = labels.dtype.kind in "iu" and _PLANNED.issuperset(names)
        # Of moved labels a problem holds a copy.
        if not planned or options.get("shift") or labels.size > MOST_POSITIONS:
            return None
        plan = _Plan(logits, labels, names, options)
        if not plan.compiled:
            return None
        plans[key] = plan
    _KEPT.last = key, plan
    return plan
