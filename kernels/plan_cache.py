"""Plans of small losses, kept by dtypes, shapes and options.

A loss of 4 x 5 takes 25 us of Python that checks it and makes the kernel's operands, and 1 us of
kernel. A plan makes the operands once, over memory of its own that logits and labels are copied to.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kernels.answer import answers_of, impossible_label, wanted
from kernels.cpu.launch import ready
from kernels.plan import TABLE, ImpossibleLabel, Kind
from kernels.problem import Array, check

# Logits: copying them takes half a microsecond at most.
LARGEST = 4096
_PLANNED = frozenset(
    name
    for name, row in TABLE.items()
    if (row.kind is Kind.SCALAR and not (row.requires or row.made_of)) or name == "per_element"
)
# Plans that a thread keeps; it drops all of them before it adds one more.
MOST = 64


class _Kept(threading.local):
    """This thread's plans by key; None: the key was seen once, or cannot be planned."""

    def __init__(self) -> None:
        self.plans: dict[Any, _Plan | None] = {}


_KEPT = _Kept()


class _Plan:
    """Losses of class indices, of one shape, dtype and set of options and outputs."""

    def __init__(
        self, logits: Array, labels: Array, outputs: Sequence[str], options: Mapping[str, Any]
    ) -> None:
        # In C order, in whatever order the first call's arrays are: else the problem holds copies.
        self._logits = np.empty(logits.shape, logits.dtype)
        self._labels = np.zeros(labels.shape, labels.dtype)
        self._problem = check(self._logits, self._labels, **options)
        self._names = wanted(self._problem, outputs)
        self._compute = ready(self._problem, self._names)

    def answers(self, logits: Array, labels: Array) -> dict[str, Array] | None:
        """Compute the losses, or return None where the kernel is not compiled yet."""
        if self._compute is None:
            return None
        self._logits[...] = logits
        self._labels[...] = labels
        try:
            blocks, arrays = self._compute()
        except ImpossibleLabel as error:
            raise impossible_label(self._problem, error.position) from None
        # The next call writes to the same arrays.
        own = {name: array.copy() for name, array in arrays.items()}
        return answers_of(self._problem, self._names, blocks, own)


def answers(
    logits: Any, labels: Any, outputs: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Array] | None:
    """Compute ``cross_entropy`` by a plan, where this thread has one for such a loss; else None.

    The dict has all of ``outputs``, and may have more. Raises ``InvalidInput``.
    """
    if type(logits) is not np.ndarray or type(labels) is not np.ndarray:
        return None
    if not 0 < logits.size <= LARGEST or not logits.flags.c_contiguous:
        return None
    if options.get("device", "cpu") != "cpu":
        return None
    names, values = tuple(outputs), tuple(options.values())
    # 1.0 == 1, but 1.0 is no index.
    kinds = tuple(map(type, values))
    key = (logits.shape, logits.dtype, labels.shape, labels.dtype, names, *options, values, kinds)
    plans = _KEPT.plans
    try:
        plan = plans[key]
    except KeyError:
        if len(plans) >= MOST:
            plans.clear()
        plans[key] = None
        return None
    except TypeError:  # weights, or an option that is no option
        return None
    if plan is None:
        # Of moved labels a problem holds a copy.
        if labels.dtype.kind not in "iu" or options.get("shift") or not _PLANNED.issuperset(names):
            return None
        plan = _Plan(logits, labels, names, options)
    known = plan.answers(logits, labels)
    plans[key] = None if known is None else plan
    return known
