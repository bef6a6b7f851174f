"""Plans of small losses, kept by dtypes, shapes and options.

A loss of 4 x 5 takes 25 us of Python that checks it and makes the kernel's operands, and 0.25 us of
kernel. A plan makes the operands once; each call of it is one call of compiled code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
from numpy.lib.stride_tricks import as_strided

from kernels.answer import answers_of, impossible_label, wanted
from kernels.cpu.launch.loss import ready
from kernels.cpu.launch.planned import DONE, OTHER
from kernels.errors import InvalidInput
from kernels.plan import TABLE, Kind
from kernels.problem import Array, check

# Logits of a loss that takes no lane, and of any. Python that is not in the cache, after a loss of
# 262 MB went through it, takes 0.4 ms without a plan and 0.05 with one; such a loss takes 4 to 7.
SMALL, LARGEST = 4096, 2**26
# Positions: a plan keeps 16 bytes for each block of 32.
MOST_POSITIONS = 2**18
_PLANNED = frozenset(
    name
    for name, row in TABLE.items()
    if (row.kind is Kind.SCALAR and not (row.requires or row.made_of)) or name == "per_element"
)
# Options that plans are made with, and others at the value that leaves them out.
_OPTIONS = frozenset({
    "logits_dtype", "class_axis", "ignore_index", "label_smoothing", "reduction", "temperature",
    "softcap", "z_loss", "empty", "check_probabilities", "bytes", "focal",
})  # fmt: skip
_LEFT_OUT = {
    **dict.fromkeys(("weight", "sample_weight", "mask", "segments", "chosen", "top_k")),
    "shift": 0,
    "device": "cpu",
}
_TAKEN = _OPTIONS.union(_LEFT_OUT)
# Plans that a thread keeps; it drops all of them before it adds one more.
MOST = 64
_LOSS = ("loss",)
P = ParamSpec("P")
T = TypeVar("T")


def _placeholder(logits: Array) -> Array:
    """Array to plan with, of the shape and dtype of ``logits``, in C order.

    Only that of few logits is ever written or read; others have the memory of one element.
    """
    if logits.size <= SMALL:
        return np.empty(logits.shape, logits.dtype)
    strides, each = [], logits.itemsize
    for extent in reversed(logits.shape):
        strides.append(each)
        each *= extent
    return as_strided(np.empty(1, logits.dtype), logits.shape, strides[::-1])


class _Plan:
    """Losses of class indices, of one shape, dtype and set of options and outputs."""

    def __init__(
        self, logits: Array, labels: Array, outputs: tuple[str, ...], options: Mapping[str, Any]
    ) -> None:
        # In C order, in whatever order the first call's arrays are: else the problem holds copies.
        self._logits = _placeholder(logits)
        self._labels = np.zeros(labels.shape, labels.dtype)
        self._problem = check(self._logits, self._labels, **options)
        self._names = wanted(self._problem, outputs)
        self._ready = ready(self._problem, self._names, self._logits, self._labels)
        self._loss_alone = self._names == _LOSS
        self.dtype = self._problem.dtype.result
        self.size, self.outputs, self.options = logits.size, outputs, options
        self.kinds = tuple(map(type, options.values()))
        if self._ready is not None:
            self.run, self.address = self._ready.call.run, self._ready.call.plan

    @property
    def compiled(self) -> bool:
        """False where ``launch.loss.ready`` has no call."""
        return self._ready is not None

    def answers(self, logits: Any, labels: Any) -> dict[str, Array] | None:
        """Compute the losses; None for anything but arrays that lie as planned.

        Raises ``InvalidInput``.
        """
        loss = np.empty((), self.dtype)
        status = self.run(self.address, logits, labels, loss)
        if self._loss_alone and status == DONE:
            return {"loss": loss}
        if status == OTHER:
            return None
        if status >= 0:
            raise self._impossible_label(labels, status)
        assert self._ready is not None
        # The next call writes to the same arrays.
        own = {name: array.copy() for name, array in self._ready.arrays.items()}
        return answers_of(self._problem, self._names, self._ready.blocks, own)

    def answers_copied(self, logits: Array, labels: Array) -> dict[str, Array] | None:
        """``answers`` for copies in the plan's own arrays: for labels in any order, logits that lie
        across their natural addresses, and dtypes that equal the planned ones.
        """
        self._labels[...] = labels
        if logits.flags.aligned:
            return self.answers(logits.view(self._logits.dtype), self._labels)
        self._logits[...] = logits
        return self.answers(self._logits, self._labels)

    def _impossible_label(self, labels: Array, position: int) -> InvalidInput:
        return impossible_label(replace(self._problem, labels=labels.reshape(-1)), position)


class _Kept(threading.local):
    """This thread's plans by key; None: the key was seen once, or cannot be planned.

    ``last`` is the plan of the last call, and ``default`` that of the last loss that was asked for
    without options: to find a plan takes 1 us.
    """

    def __init__(self) -> None:
        self.plans: dict[Any, _Plan | None] = {}
        self.last: _Plan | None = None
        self.default: _Plan | None = None

    def clear(self) -> None:
        """Drop all plans."""
        self.__init__()  # type: ignore[misc]


_KEPT = _Kept()


def planned(cross_entropy: Callable[P, T]) -> Callable[P, T]:
    """Have ``cross_entropy`` compute losses alone by plans, where this thread has them."""

    @wraps(cross_entropy)
    def planned_cross_entropy(logits: Any, labels: Any, **options: Any) -> Any:
        plan = _KEPT.default
        if plan is not None and not options:  # not a call more than needed: each takes 40 ns
            loss = np.empty((), plan.dtype)
            if plan.run(plan.address, logits, labels, loss) == DONE:
                return loss
        if _TAKEN.issuperset(options):
            known = answers(logits, labels, _LOSS, options, LARGEST)
            if known is not None:
                return known["loss"]
        return cross_entropy(logits, labels, **options)

    return cast(Callable[P, T], planned_cross_entropy)


def answers(
    logits: Any,
    labels: Any,
    outputs: tuple[str, ...],
    options: Mapping[str, Any],
    largest: int = SMALL,
) -> dict[str, Array] | None:
    """Compute ``cross_entropy`` by a plan, where this thread has one for such a loss; else None.

    That is on the CPU, for at most ``largest`` logits. The dict has all of ``outputs``, and may
    have more. Raises ``InvalidInput``.
    """
    # 1.0 == 1, but 1.0 is no index. Types come first: a number is not compared with an array.
    kinds, plan = tuple(map(type, options.values())), _KEPT.last
    same = plan is not None and plan.kinds == kinds and plan.outputs == outputs
    if plan is not None and same and plan.options == options and plan.size <= largest:
        known = plan.answers(logits, labels)
        if known is not None:
            return known
    if type(logits) is not np.ndarray or type(labels) is not np.ndarray:
        return None
    flags, size = logits.flags, logits.size
    # In a small body tensors lie wherever its head ends; larger ones are not copied.
    if not (0 < size <= largest and flags.c_contiguous and (flags.aligned or size <= SMALL)):
        return None
    shapes, values = (logits.shape, labels.shape), tuple(options.values())
    key = (logits.dtype, labels.dtype, shapes, outputs, kinds, values, tuple(options))
    plan = _find(key, logits, labels, outputs, options)
    if plan is None:
        return None
    _KEPT.last = plan
    if not options and outputs == _LOSS:
        _KEPT.default = plan
    known = plan.answers(logits, labels)
    return plan.answers_copied(logits, labels) if known is None else known


def _find(
    key: Any, logits: Array, labels: Array, names: tuple[str, ...], options: Mapping[str, Any]
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
        if not planned or labels.size > MOST_POSITIONS or not _plannable(options):
            return None
        plan = _Plan(logits, labels, names, options)
        if not plan.compiled:
            return None
        plans[key] = plan
    return plan


def _plannable(options: Mapping[str, Any]) -> bool:
    """Return True for a loss without weights, on the CPU. Of moved labels a problem has a copy."""
    return all(
        name in _OPTIONS or (name in _LEFT_OUT and value == _LEFT_OUT[name])
        for name, value in options.items()
    )
