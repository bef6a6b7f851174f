"""Values that a report takes from kernels: in one pass over the logits, or in several."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from kernels.cpu.launch.summary import in_steps
from kernels.devices import compute
from kernels.problem import Problem
from kernels.report.pieces import Piece
from kernels.tensors import widened

Array = np.ndarray[Any, Any]

# Losses and their weights, float64 and not reduced: the kernels write both or neither.
NAMES = ("losses", "weights")


class Rows(NamedTuple):
    """Logits of a piece's positions as float64, after softcap and before temperature."""

    problem: Problem
    piece: Piece

    def raw(self, positions: Array) -> Array:
        """Logits as they were given, of shape (positions, classes).

        Of one position they are a view of the input, where its classes are contiguous.
        """
        places = self.piece.at(positions)
        if len(positions) == 1:
            places = tuple([place[0] for place in places])
        rows = self.piece.by_class()[places].reshape(len(positions), -1)
        return np.ascontiguousarray(rows).view(self.problem.dtype.numpy)

    def __call__(self, positions: Array) -> Array:
        return self._converted(self.raw(positions))

    def logits(self, positions: Array, classes: Array) -> Array:
        """The logit of each position's class in ``classes``."""
        return self._converted(self.piece.by_class()[(*self.piece.at(positions), classes)])

    def _converted(self, bits: Array) -> Array:
        values = widened(np.atleast_1d(bits).view(self.problem.dtype.numpy))
        with np.errstate(invalid="ignore"):
            values = values.astype(np.float64)
        if self.problem.softcap is not None:
            values = self.problem.softcap * np.tanh(values / self.problem.softcap)
        return values


class Found(NamedTuple):
    """Values that ``Step`` is made of.

    ``above``: the prediction's logit minus the label's, over the temperature.
    """

    nll: Array
    squares: Array
    above: Array
    ranks: Array
    predictions: Array


def in_passes(plain: Problem, rows: Rows) -> Found:
    """Values from several passes; the second and others find the logits in cache."""
    labels = plain.labels
    assert labels is not None
    _, found = compute(plain, (*NAMES, "rank", "prediction"))
    nll, predictions = found["losses"], found["prediction"]
    # The sum of exp(2 z) is that of another temperature.
    everywhere = np.arange(len(nll))
    _, halved = compute(replace(plain, temperature=plain.temperature / 2.0), NAMES)
    with np.errstate(invalid="ignore", over="ignore"):
        squares = np.minimum(np.exp(halved["losses"] - 2.0 * nll), 1.0)
        above = rows.logits(everywhere, predictions) - rows.logits(everywhere, labels)
        above /= plain.temperature
    return Found(nll, squares, above, found["rank"], predictions)


def at_once(plain: Problem, rows: Rows, launches: int) -> Generator[int, None, Found]:
    """The same of one pass, in so many ``launches``; rows that it leaves out go through several.

    Before each launch, yields how many bytes of all logits, from the first, have to be there.
    """
    assert plain.labels is not None
    known = yield from in_steps(plain, plain.labels, launches, rows.piece.reach_of)
    with np.errstate(invalid="ignore", over="ignore"):
        above = (known.largest - known.own) / plain.temperature
    squares = np.minimum(known.squares, 1.0)
    found = Found(known.nll, squares, above, known.rank, known.prediction)
    odd = np.flatnonzero(known.prediction < 0)
    if odd.size:
        logits = rows.raw(odd).view(plain.logits.dtype)
        some = replace(plain, logits=logits, axis=1, labels=plain.labels[odd])
        piece = Piece(0, len(odd), some.logits, 1, 0)
        for whole, part in zip(found, in_passes(some, Rows(some, piece)), strict=True):
            whole[odd] = part
    return found
