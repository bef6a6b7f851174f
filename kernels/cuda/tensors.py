"""What a piece of a problem has on the device: its tensors, from the one table of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kernels.cpu.launch import PER_POSITION
from kernels.cpu.views import PER_CLASS, options_of
from kernels.cuda.arguments import Labels, Reals, Rule
from kernels.cuda.kinds import Kind, segments_of
from kernels.cuda.losses import STATES
from kernels.cuda.memory import rounded
from kernels.cuda.sums import Sums
from kernels.problem import Problem

# Fields of ``Sums`` that are whole numbers; the others are real.
_WHOLES = 2
_REALS = len(Sums._fields) - _WHOLES
# Fixed sizes, in elements: see ``Answers.status``.
STATUS = 2
RESIDENT = ("losses", "weights")


class Tensor(NamedTuple):
    """``count`` elements a position."""

    dtype: Any
    count: int = 1

    def bytes(self, positions: int) -> int:
        return rounded(np.dtype(self.dtype).itemsize * self.count * positions)


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
    inner = options.scale, options.to_nats, cap, options.keep, options.spread
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
        per_class=bool({*PER_CLASS} & set(names)),
    )


def labels_of(problem: Problem, classes: Any, samples: Any) -> Labels:
    """The labels as the kernels take them; an unsigned label is never a negative ignore index."""
    if problem.labels is None:
        return Labels(classes, False, 0, samples)
    limits = np.iinfo(problem.labels.dtype)
    ignores = limits.min <= problem.ignore_index <= limits.max
    return Labels(classes, bool(ignores), problem.ignore_index, samples)
