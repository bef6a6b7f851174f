"""Plans of losses (``planned_loss``), kept by each thread by dtypes, shapes and options."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from kernels.cpu.launch.loss import threads_of
from kernels.cpu.launch.planned import DONE
from kernels.errors import InvalidInput
from kernels.plan import TABLE, Kind
from kernels.planned_loss import SMALL, PlannedLoss, bytes_of
from kernels.problem import Array

# Logits of any loss: one of 262 MB takes 4 to 7 ms, and a tenth of that without a plan.
LARGEST = 2**26
# Bytes of a plan, and of all plans of a thread. A million rows of 10 classes took 2.4 ms, 0.28 of
# them without a plan.
MOST_BYTES, ALL_BYTES = 10 * 2**20, 40 * 2**20
_PLANNED = frozenset(
    name
    for name, row in TABLE.items()
    if "cross_entropy" in row.operations and row.kind is not Kind.CLASS
)
# Options that plans are made with, and tensors, of which each call has its own.
_OPTIONS = frozenset({
    "logits_dtype", "class_axis", "ignore_index", "label_smoothing", "reduction", "temperature",
    "softcap", "z_loss", "empty", "check_probabilities", "bytes", "focal", "shift", "top_k",
})  # fmt: skip
_TENSORS = frozenset({"mask", "segments", "chosen"})
_WEIGHTS = frozenset({"weight", "sample_weight"})
# Plans that a thread keeps; it drops all of them before one is too many.
MOST = 64
_LOSS = ("loss",)
_LISTS = (tuple, list, type(None))
P = ParamSpec("P")
T = TypeVar("T")


def _key_of(options: Mapping[str, Any]) -> tuple[Any, ...]:
    """Key of options: of arrays, their dtypes and shapes.

    1.0 == 1, but 1.0 is no index. Types come first: a number is not compared with an array.
    """
    kinds = tuple(map(type, options.values()))
    values = [
        (value.dtype, value.shape) if type(value) is np.ndarray else value
        for value in options.values()
    ]
    return kinds, tuple(options), tuple(values)


class _Kept(threading.local):
    """This thread's plans by key; None: the key was seen once, or its kernel
    is not compiled.

    ``last`` is the plan of the last call, and ``default`` that of the last loss that was asked for
    without options: to find a plan takes 1 us.
    """

    def __init__(self) -> None:
        self.plans: dict[Any, PlannedLoss | None] = {}
        self.last: PlannedLoss | None = None
        self.default: PlannedLoss | None = None

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
            if plan.run(plan.address, logits, labels, (), loss) == DONE:
                return loss
        outputs = options.pop("outputs", None)
        if type(outputs) in _LISTS:
            names = _LOSS if outputs is None else tuple(outputs)
            known = answers(logits, labels, names, options, LARGEST)
            if known is not None:
                return known["loss"] if outputs is None else {name: known[name] for name in names}
        return cross_entropy(logits, labels, outputs=outputs, **options)

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
    plan = _KEPT.last
    if plan is not None and plan.size <= largest and plan.fits(outputs, options):
        known = plan.answers(logits, labels, options)
        if known is not None:
            return known
    if type(logits) is not np.ndarray or type(labels) is not np.ndarray:
        return None
    flags, size = logits.flags, logits.size
    # In a small body tensors lie wherever its head ends; larger ones are not copied.
    if not (0 < size <= largest and flags.c_contiguous and (flags.aligned or size <= SMALL)):
        return None
    shapes = logits.dtype, labels.dtype, logits.shape, labels.shape
    key = (*shapes, outputs, threads_of(size), _key_of(options))
    plan = _find(key, logits, labels, outputs, options)
    if plan is None:
        return None
    if not plan.checked:
        _KEPT.last = plan
    if not options and outputs == _LOSS:
        _KEPT.default = plan
    known = plan.answers(logits, labels, options)
    return plan.answers_copied(logits, labels, options) if known is None else known


def _find(
    key: Any, logits: Array, labels: Array, names: tuple[str, ...], options: Mapping[str, Any]
) -> PlannedLoss | None:
    """Plan for ``key``, made when it is seen a second time; None where there can be none."""
    plans = _KEPT.plans
    try:
        plan = plans[key]
    except KeyError:
        if not _plannable(labels, names, options):
            return None
        if len(plans) >= MOST:
            _KEPT.clear()
        _KEPT.plans[key] = None
        return None
    except TypeError:  # weights, or an option that is no option
        return None
    if plan is None:
        try:
            plan = PlannedLoss(logits, labels, names, options)
        except InvalidInput:  # raised again, but for tensors that are not placeholders
            return None
        if plan.possible and not plan.compiled:
            return None
        kept = sum([each.bytes for each in plans.values() if each])
        if kept + plan.bytes > ALL_BYTES:
            _KEPT.clear()
        _KEPT.plans[key] = plan
    return plan if plan.compiled else None


def _plannable(labels: Array, names: tuple[str, ...], options: Mapping[str, Any]) -> bool:
    """Return True for class indices without weights, on the CPU."""
    return (
        labels.dtype.kind in "iu"
        and bytes_of(labels, names, options) <= MOST_BYTES
        and _PLANNED.issuperset(names)
        and all(
            name in _OPTIONS
            or (name in _TENSORS and type(value) in (np.ndarray, type(None)))
            or (name in _WEIGHTS and value is None)
            or (name == "device" and type(value) is str and value == "cpu")
            for name, value in options.items()
        )
    )
