"""Calibration: how often predictions of a confidence are right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels.report.exact import ExactSums
from kernels.report.step import Step

Array = np.ndarray[Any, Any]


def edges_of(bins: int) -> Array:
    """Edges of ``bins`` bins of equal width from 0 to 1: float64 quotients, rounded once each."""
    return np.arange(bins + 1) / bins


class Calibration:
    """Counts and sums of ``bins`` bins; bin k is [k / bins, (k + 1) / bins), the last one closed.

    ``counts`` and ``right`` are int64; ``confidences`` has the sums of the bins' confidences,
    ``brier`` that of all Brier scores. A NaN confidence is in no bin.
    """

    def __init__(self, bins: int) -> None:
        self.counts = np.zeros(bins, np.int64)
        self.right = np.zeros(bins, np.int64)
        self.confidences = ExactSums(bins)
        self.brier = ExactSums(1)

    def add(self, step: Step) -> None:
        """Add a step's positions, all of which count."""
        known = ~np.isnan(step.confidences)
        confidences = step.confidences[known]
        places = self._places(confidences)
        np.add.at(self.counts, places, 1)
        np.add.at(self.right, places[step.ranks[known] == 0], 1)
        self.confidences.add(places, confidences)
        # Sum over classes of (p - y)**2, G. W. Brier's score of 1950.
        with np.errstate(over="ignore"):
            scores = step.squares - 2.0 * np.exp(-step.nll) + 1.0
        self.brier.add(np.zeros(len(scores), np.int64), np.maximum(scores, 0.0))

    def _places(self, confidences: Array) -> Array:
        """Bins of ``confidences``: their products with the number of bins, put right at edges."""
        bins = len(self.counts)
        edges = edges_of(bins)
        places = np.minimum((confidences * bins).astype(np.int64), bins - 1)
        places -= confidences < edges[places]
        return places + ((confidences >= edges[places + 1]) & (places < bins - 1))

    def merge(self, other: Calibration) -> None:
        """Add the positions of ``other``, which has as many bins."""
        self.counts += other.counts
        self.right += other.right
        self.confidences.merge(other.confidences)
        self.brier.merge(other.brier)

    def numbers(self, count: int) -> dict[str, Any]:
        """Bins, ECE and MCE (C. Guo et al., 2017) and the mean Brier score of ``count`` positions.

        ECE is the mean of the bins' gaps between accuracy and mean confidence, weighted by their
        counts; MCE is the largest gap.
        """
        edges, sums = edges_of(len(self.counts)).tolist(), self.confidences.totals().tolist()
        rows: list[dict[str, Any]] = []
        gaps, total = [], int(self.counts.sum())
        for i, (number, right, summed) in enumerate(
            zip(self.counts.tolist(), self.right.tolist(), sums, strict=True)
        ):
            row = {"low": edges[i], "high": edges[i + 1], "count": number, "correct": right}
            confidence, accuracy = (summed / number, right / number) if number else (None, None)
            rows.append({**row, "confidence": confidence, "accuracy": accuracy})
            if number:
                gaps.append((abs(right - summed), abs(right - summed) / number))
        return {
            "bins": rows,
            "ece": math.fsum(gap for gap, _ in gaps) / total if total else math.nan,
            "mce": max((gap for _, gap in gaps), default=math.nan),
            "brier": self.brier.total() / count if count else math.nan,
        }
