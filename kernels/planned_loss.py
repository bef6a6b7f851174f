"""A loss that is computed again and again, of one shape, dtype and set of options and outputs.

Its operands are made once, and each call of it is one or two calls of compiled code. To check a
loss of 4 x 5 and to make them takes 25 us of Python, and the kernel 0.25. After a loss of 262 MB,
which puts Python's code out of the cache, they take 0.4 ms, and 0.6 with a mask and sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from kernels.answer import answers_of, impossible_label, wanted
from kernels.choice import checked_classes
from kernels.cpu.launch.loss import whole
from kernels.cpu.launch.moves import MovedLabels, moved_labels
from kernels.cpu.launch.objects import KNOWN_FIELDS
from kernels.cpu.launch.planned import DONE, OTHER, Ready, ready
from kernels.errors import InvalidInput
from kernels.plan import BY_SEQUENCE, TABLE, Kind
from kernels.problem import Array, Problem, check
from kernels.sequences import moved, segments_of

# Logits of a loss that takes no lane. Only so few are ever copied.
SMALL = 4096


# Bytes that a plan keeps of each position, at most: of a loss alone a label, and 16 for each block
# of 32; else labels that are moved, sequences that are judged and terms of sums as well.
_LIGHT, _HEAVY = 9, 40


def bytes_of(labels: Array, outputs: tuple[str, ...], options: Mapping[str, Any]) -> int:
    """Largest number of bytes that a plan keeps of such a loss."""
    reduction = options.get("reduction", "mean")
    reduces = type(reduction) is str and reduction != "none"
    moved_or_kept = {"shift", "mask", "segments", "chosen"} & options.keys()
    light = reduces and outputs == ("loss",) and not moved_or_kept
    return labels.size * (_LIGHT if light else _HEAVY)


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


class PlannedLoss:
    """Losses of class indices; ``options`` may hold tensors, of which each call has its own.

    ``run`` and ``address`` are of ``planned.Ready``. ``possible``: there is a call of it as soon as
    the kernel is compiled. ``checked``: the values of some tensors are checked at each call, so all
    shapes and dtypes have to be known before.
    """

    def __init__(
        self, logits: Array, labels: Array, outputs: tuple[str, ...], options: Mapping[str, Any]
    ) -> None:
        # In C order, in whatever order the first call's arrays are: else the problem holds copies.
        self._logits = _placeholder(logits)
        self._labels = np.zeros(labels.shape, labels.dtype)
        self._options: dict[str, Any] = {
            name: np.zeros(value.shape, value.dtype) if type(value) is np.ndarray else value
            for name, value in options.items()
        }
        problem = check(self._logits, self._labels, **self._options)
        names, indices = wanted(problem, outputs), self._labels
        self._moved: MovedLabels | None = None
        if problem.given is not None or not BY_SEQUENCE.isdisjoint(names):
            self._moved = moved_labels(problem, self._labels, self._options.get("mask"))
            indices = self._moved.labels
            problem = replace(problem, labels=indices, given=self._labels.reshape(-1))
        self._problem, self._outputs = problem, outputs
        self.size, self.dtype = logits.size, problem.dtype.result
        self.bytes = bytes_of(labels, outputs, options)
        self.checked = problem.segments is not None or problem.chosen is not None
        launch = whole(problem, names)
        # Moved labels are int64s, which do not hold all of 64 bits without a sign.
        movable = self._moved is None or labels.dtype != np.uint64
        self._ready: Ready | None = None
        self.possible = KNOWN_FIELDS and movable and launch is not None
        if self.possible and launch is not None:
            self._ready = ready(problem, names, launch, self._logits, indices)
        if self._ready is not None:
            self.run, self.address = self._ready.run, self._ready.plan
            self._terms = self._ready.kept if "losses" in names else {}
            self._divide(self._ready.own)

    def _divide(self, own: Mapping[str, Array]) -> None:
        """Divide the outputs into those that compiled code writes as they are, and the rest."""
        problem, names, whole = self._problem, self._outputs, self._problem.segments is None
        self._own = [
            (name, problem.shape if TABLE[name].kind is Kind.POSITION else array.shape, array.dtype)
            for name, array in own.items()
            if name not in ("sequence_greedy", "sequence", "chosen")
        ]
        self._unreduced = problem.reduction == "none" and "loss" in names
        if self._unreduced:
            names = (*names, "per_element")
        self._ones: Array | None = None
        if whole and "sequence_greedy" in names:
            self._ones = np.ones(problem.sequences.shape, np.int64)
        self._counted = whole and "sequence_count" in names
        self._done = [
            name
            for name in names
            if name in own
            and (whole or name != "sequence_greedy")
            and (problem.shift == 0 or TABLE[name].unlabelled is None)
        ]
        made = {*self._done, "loss", *["sequence_count"] * self._counted}
        self._rest = tuple([name for name in names if name not in made])

    @property
    def compiled(self) -> bool:
        """False where there is no call of it."""
        return self._ready is not None

    def fits(self, outputs: tuple[str, ...], options: Mapping[str, Any]) -> bool:
        """True for the planned outputs and options, whatever the tensors among these are."""
        known = self._options
        if outputs != self._outputs or len(options) != len(known):
            return False
        for name, value in options.items():
            other = known.get(name, known)
            # 1.0 == 1, but 1.0 is no index. Arrays are not compared.
            if value is not other and (
                type(value) is not type(other) or (type(value) is not np.ndarray and value != other)
            ):
                return False
        return True

    def answers(
        self, logits: Any, labels: Any, options: Mapping[str, Any]
    ) -> dict[str, Array] | None:
        """Compute the outputs; None for anything but arrays that lie as planned.

        Raises ``InvalidInput``.
        """
        problem, indices, moves = self._problem, labels, self._moved
        own: dict[str, Array] = {name: np.empty(shape, dtype) for name, shape, dtype in self._own}
        if moves is not None:
            if not moves.write(labels, options.get("mask")):
                return None
            indices = moves.labels
            if self._ones is not None:
                own["sequence_greedy"] = self._ones.copy()
        if self.checked:
            problem = self._given(options, own)
        answers = {name: own[name] for name in self._done}
        if moves is not None and self._counted:
            answers["sequence_count"] = moves.counts.copy()
        answers["loss"] = loss = np.empty((), self.dtype)
        status = self.run(self.address, logits, indices, tuple(own.values()), loss)
        if status == OTHER:
            return None
        if status >= 0:
            raise self._impossible_label(labels, status)
        assert self._ready is not None
        rest = self._rest
        if status != DONE and "loss" in self._outputs:
            rest = (*rest, "loss")
        if rest:
            # The next call writes to the same arrays.
            own |= {name: array.copy() for name, array in self._terms.items()}
            answers |= answers_of(problem, rest, self._ready.blocks, own)
        if self._unreduced:
            answers["loss"] = answers["per_element"]
        return answers

    def _given(self, options: Mapping[str, Any], own: dict[str, Array]) -> Problem:
        """The problem with the call's tensors, checked; those that kernels read are ``own``, too.

        Raises ``InvalidInput``.
        """
        problem = self._problem
        if problem.segments is not None:
            problem = replace(problem, segments=segments_of(options["segments"], problem.shape))
            if "sequence_greedy" in self._outputs:
                sequences = problem.sequences
                own["sequence_greedy"] = np.ones(sequences.size, np.int64)
                own["sequence"] = np.ascontiguousarray(moved(sequences.of, -problem.shift, 0))
        if problem.chosen is not None:
            own["chosen"] = checked_classes(options["chosen"], problem.logits.shape, problem.axis)
        return problem

    def answers_copied(
        self, logits: Array, labels: Array, options: Mapping[str, Any]
    ) -> dict[str, Array] | None:
        """``answers`` for copies in the plan's own arrays: for labels in any order, logits that lie
        across their natural addresses, and dtypes that equal the planned ones.
        """
        self._labels[...] = labels
        mask = self._options.get("mask")
        if mask is not None:
            mask[...] = options["mask"]
            options = {**options, "mask": mask}
        if logits.flags.aligned:
            return self.answers(logits.view(self._logits.dtype), self._labels, options)
        self._logits[...] = logits
        return self.answers(self._logits, self._labels, options)

    def _impossible_label(self, labels: Array, position: int) -> InvalidInput:
        name = "labels" if self._moved is None else "given"
        given: dict[str, Any] = {name: labels.reshape(-1)}
        return impossible_label(replace(self._problem, **given), position)
