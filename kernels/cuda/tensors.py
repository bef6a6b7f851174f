"""What a piece of a problem has on the device: its tensors, from the one table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from kernels.cpu.arguments import View
from kernels.cpu.launch import PER_POSITION
from kernels.cpu.views import PER_CLASS, options_of
from kernels.cuda.arguments import Answers, Labels, Reals, Rule
from kernels.cuda.kinds import Kind, segments_of
from kernels.cuda.launch import Operands
from kernels.cuda.losses import STATES
from kernels.cuda.memory import rounded
from kernels.cuda.sums import Sums
from kernels.problem import Problem

# Fields of ``Sums`` that are whole numbers; the others are real.
_WHOLES = 2
_REALS = len(Sums._fields) - _WHOLES
# Fixed sizes, in elements: see ``Answers.status``.
STATUS = 2
NOWHERE = 2**62  # a position that no piece has: what ``Answers.status`` starts from
RESIDENT = ("losses", "weights")


class Tensor(NamedTuple):
    """``each`` elements a position."""

    dtype: Any
    each: int = 1

    def bytes(self, positions: int) -> int:
        return rounded(np.dtype(self.dtype).itemsize * self.each * positions)


class Wanted(NamedTuple):
    """What is to be computed: the ``kind`` of kernels, the outputs, and all tensors of a piece."""

    kind: Kind
    outputs: tuple[str, ...]
    tensors: dict[str, Tensor]
    segments: int

    def bytes(self, positions: int) -> int:
        """What a piece of so many positions takes."""
        pieces = sum(tensor.bytes(positions) for tensor in self.tensors.values())
        return pieces + rounded(8 * STATUS)


def wanted_of(problem: Problem, names: tuple[str, ...], rows: bool) -> Wanted:
    """The tensors that ``problem`` and the outputs ``names`` take."""
    smooth = problem.soft is not None or problem.label_smoothing > 0.0
    more = bool({"entropy", "rank", "prediction"} & set(names))
    capped, softly = problem.softcap is not None, problem.soft is not None
    kind = Kind(problem.dtype, capped, smooth and not problem.normalised, softly, more)
    segments = segments_of(problem.classes, rows)
    real = problem.dtype.result
    tensors = {"logits": Tensor(problem.dtype.load, problem.classes)}
    if problem.soft is not None:
        tensors["soft"] = Tensor(problem.soft.dtype, problem.classes)
    if problem.labels is not None:
        tensors["labels"] = Tensor(np.int64)
    if problem.sample_weight is not None:
        tensors["samples"] = Tensor(np.float64)
    for name in PER_CLASS:
        if name in names:
            tensors[name] = Tensor(real, problem.classes)
    if {*PER_CLASS} & set(names):
        tensors["state"] = Tensor(np.float64, STATES)
    for name, dtype in PER_POSITION.items():
        if name in names and name not in RESIDENT:
            tensors[name] = Tensor(dtype or real)
    tensors["odd"] = Tensor(np.int64)
    if segments > 1:
        tensors["parts"] = Tensor(real, _REALS * segments)
        tensors["places"] = Tensor(np.int64, _WHOLES * segments)
    outputs = tuple(name for name in (*PER_POSITION, *PER_CLASS) if name in tensors)
    return Wanted(kind, outputs, tensors, segments)


def rule_of(problem: Problem, names: tuple[str, ...], upstream: float, send: Any) -> Rule:
    """The CPU's options, with their arrays on the device: ``send`` puts them there."""
    options = options_of(problem, names, upstream)
    real = problem.dtype.result.type
    cap = problem.softcap or 1.0
    inner = options.scale, options.to_nats, cap, options.keep, options.spread, options.unit
    return Rule(
        reals=Reals(*map(real, inner)),
        scale=options.scale,
        to_nats=options.to_nats,
        unit=options.unit,
        cap=cap,
        keep=options.keep,
        spread=options.spread,
        z_loss=options.z_loss,
        weight=send(options.weight),
        lane_weight=send(options.lane_weight),
        mass=options.mass,
        probs=options.probs,
        upstream=options.upstream,
        ignored_too=options.ignored_too,
        tolerance=options.tolerance,
        per_class=bool({*PER_CLASS} & set(names)),
    )


def labels_of(problem: Problem, classes: Any, samples: Any) -> Labels:
    """The labels as the kernels take them; an unsigned label is never a negative ignore index."""
    if problem.labels is None:
        return Labels(classes, False, 0, samples)
    limits = np.iinfo(problem.labels.dtype)
    ignores = limits.min <= problem.ignore_index <= limits.max
    return Labels(classes, bool(ignores), problem.ignore_index, samples)


class Nothing:
    """Arrays of no elements, or of ``rows`` of one: what is not wanted, and is not written to."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}

    def __call__(self, dtype: Any, rows: int = 0) -> Any:
        key = np.dtype(dtype), rows
        if key not in self._made:
            self._made[key] = cuda.device_array((rows, 1) if rows else 0, dtype)
        return self._made[key]


# Of ``Answers``: the dtype, where it is not the results' own, and the rows of what has two axes.
_ANSWERS: dict[str, tuple[Any, int]] = {
    "rank": (np.int64, 0),
    "prediction": (np.int64, 0),
    "state": (np.float64, STATES),
    "parts": (None, _REALS),
    "places": (np.int64, _WHOLES),
}


def operands_of(
    problem: Problem, rule: Rule, own: Mapping[str, Any], nothing: Nothing,
    view: Callable[[str, Any], View],
) -> Operands:  # fmt: skip
    """What kernels are told of the arrays in ``own``, by the names in ``Wanted.tensors``.

    ``view(name, data)`` says how what has a value for each class lies.
    """
    real, load = problem.dtype.result, problem.dtype.load

    def answer(name: str) -> Any:
        dtype, rows = _ANSWERS.get(name, (None, 0))
        if name not in own:
            return nothing(dtype or real, rows)
        return own[name].reshape(rows, own[name].size // rows) if rows else own[name]

    labels = own.get("labels", nothing(np.int64)), own.get("samples", nothing(np.float64))
    return Operands(
        logits=view("logits", own["logits"]),
        soft=view("soft", own.get("soft", nothing(load))),
        labels=labels_of(problem, *labels),
        rule=rule,
        answers=Answers(*map(answer, Answers._fields)),
        log_probs=view("log_probs", own.get("log_probs", nothing(real))),
        gradient=view("gradient", own.get("gradient", nothing(real))),
    )
