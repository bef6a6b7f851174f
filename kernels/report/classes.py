"""Counts and losses of each class, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kernels.report.exact import ExactSums
from kernels.report.step import Step

Array = np.ndarray[Any, Any]

# Classes, at most, of which the whole confusion matrix is kept; and pairs named of more classes.
MATRIX, PAIRS = 64, 32
# Classes, at most, that a report lists: those of most loss.
LISTED = 1000
# Confused pairs that wait to be sorted, at least.
_WAITING = 1 << 16


class Losses:
    """Sums of losses and weights of each group of positions, and how many there are.

    ``ones`` counts the weights of 1, most often all; ``weights`` has the sums of the others.
    """

    def __init__(self, groups: int) -> None:
        self.counts = np.zeros(groups, np.int64)
        self.losses = ExactSums(groups)
        self.ones = np.zeros(groups, np.int64)
        self.weights = ExactSums(groups)

    def add(self, groups: Array, losses: Array, weights: Array) -> None:
        """Add positions to their ``groups``."""
        np.add.at(self.counts, groups, 1)
        self.losses.add(groups, losses)
        one = weights == 1.0
        np.add.at(self.ones, groups[one], 1)
        if not one.all():
            self.weights.add(groups[~one], weights[~one])

    def merge(self, other: Losses, at: int = 0) -> None:
        """Add ``other``, whose group 0 is group ``at`` here."""
        missing = at + len(other.counts) - len(self.counts)
        if missing > 0:
            more = np.zeros(missing, np.int64)
            self.counts = np.concatenate([self.counts, more])
            self.ones = np.concatenate([self.ones, more])
        self.counts[at : at + len(other.counts)] += other.counts
        self.ones[at : at + len(other.ones)] += other.ones
        self.losses.merge(other.losses, at)
        self.weights.merge(other.weights, at)

    def of(self, groups: Array) -> Losses:
        """Sums and counts of some ``groups``."""
        some = Losses(0)
        some.counts, some.ones = self.counts[groups], self.ones[groups]
        some.losses, some.weights = self.losses.of(groups), self.weights.of(groups)
        return some

    def totals(self) -> tuple[Array, Array]:
        """Sum of the losses of each group, and their weighted mean: NaN where all weights are 0."""
        sums = self.losses.totals()
        with np.errstate(divide="ignore", invalid="ignore"):
            return sums, sums / (self.ones + self.weights.totals())

    def weight(self) -> float:
        """Sum of all weights."""
        return float(self.ones.sum()) + self.weights.total()


class Classes:
    """Positions by label, how many are right, predictions by class, and pairs of both.

    ``matrix`` counts predictions (its columns) of each label where there are at most MATRIX
    classes. Else ``pairs`` counts the wrong ones, by label * classes + prediction: 16 bytes a
    distinct pair, of positions whose logits take 130 and more.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.sums = Losses(classes)
        self.right = np.zeros(classes, np.int64)
        self.predicted = np.zeros(classes, np.int64)
        self.matrix = np.zeros((classes, classes), np.int64) if classes <= MATRIX else None
        self._keys = np.empty(0, np.int64)
        self._numbers = np.empty(0, np.int64)
        self._waiting: list[tuple[Array, Array]] = []

    def add(self, step: Step) -> None:
        """Add a step's positions, all of which count."""
        labels, predictions = step.labels, step.predictions
        right = step.ranks == 0
        self.sums.add(labels, step.losses, step.weights)
        np.add.at(self.right, labels[right], 1)
        np.add.at(self.predicted, predictions, 1)
        if self.matrix is not None:
            np.add.at(self.matrix, (labels, predictions), 1)
        else:
            wrong = labels != predictions
            keys = labels[wrong] * self.classes + predictions[wrong]
            self._wait(keys, np.ones(len(keys), np.int64))

    def merge(self, other: Classes) -> None:
        """Add the positions of ``other``, which has as many classes."""
        self.sums.merge(other.sums)
        self.right += other.right
        self.predicted += other.predicted
        if self.matrix is not None and other.matrix is not None:
            self.matrix += other.matrix
        else:
            self._wait(*other.pairs())

    def _wait(self, keys: Array, numbers: Array) -> None:
        self._waiting.append((keys, numbers))
        if sum(len(keys) for keys, _ in self._waiting) > max(_WAITING, len(self._keys)):
            self.pairs()

    def pairs(self) -> tuple[Array, Array]:
        """Keys of the confused pairs, ascending, and their counts."""
        if self._waiting:
            keys = np.concatenate([self._keys, *(keys for keys, _ in self._waiting)])
            numbers = np.concatenate([self._numbers, *(some for _, some in self._waiting)])
            self._keys, places = np.unique(keys, return_inverse=True)
            self._numbers = np.zeros(len(self._keys), np.int64)
            np.add.at(self._numbers, places.reshape(-1), numbers)
            self._waiting = []
        return self._keys, self._numbers

    def load_pairs(self, keys: Array, numbers: Array) -> None:
        """Take pairs in place of those here."""
        self._keys, self._numbers = keys.astype(np.int64), numbers.astype(np.int64)

    def confusion(self) -> dict[str, Any]:
        """The matrix, or the PAIRS most confused pairs, of equals the first by label."""
        if self.matrix is not None:
            return {"matrix": self.matrix.tolist()}
        keys, numbers = self.pairs()
        order = np.lexsort((keys, -numbers))[:PAIRS]
        return {
            "pairs": [
                {"label": key // self.classes, "prediction": key % self.classes, "count": number}
                for key, number in zip(keys[order].tolist(), numbers[order].tolist(), strict=True)
            ]
        }

    def listed(self) -> list[dict[str, Any]]:
        """A row for each class, or for the LISTED ones of most loss in all, in order of class."""
        shown = np.arange(self.classes)
        if self.classes > LISTED:
            used = np.flatnonzero(self.sums.counts)
            shown = used if len(used) >= LISTED else shown
            some = self.sums.of(shown)
            losses = np.nan_to_num(some.totals()[0], nan=np.inf)
            losses[some.counts == 0] = -np.inf
            shown = np.sort(shown[np.lexsort((shown, -losses))[:LISTED]])
        some = self.sums.of(shown)
        columns: Mapping[str, Array] = {
            "class": shown,
            "count": some.counts,
            "loss": some.totals()[1],
            "right": self.right[shown],
            "predicted": self.predicted[shown],
        }
        return [
            {
                "class": each,
                "count": count,
                "loss": loss if count else None,
                "accuracy": right / count if count else None,
                "predicted": predicted,
            }
            for each, count, loss, right, predicted in zip(
                *(column.tolist() for column in columns.values()), strict=True
            )
        ]
