"""Histogram of losses in bins that are fixed in advance, so that parts merge by adding integers.

Each octave from 2**-24 to 2**40 has 64 bins of equal width, whose edges are float64 numbers of six
bits after the first; one more bin is below them, and one above. Coarser bins, linear or
logarithmic, and bounds of quantiles follow from these.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_FIRST, _LAST = -24, 40
_SUB_BITS = 6
_SUB = 1 << _SUB_BITS
BINS = (_LAST - _FIRST) * _SUB
# Lower edges of the bins, and the upper edge of the last.
EDGES = np.ldexp(
    np.tile(1.0 + np.arange(_SUB) / _SUB, _LAST - _FIRST + 1),
    np.repeat(np.arange(_FIRST, _LAST + 1), _SUB),
)[: BINS + 1]
# Linear bins an octave of the largest loss: 16 to 32 in all.
_LINEAR = 16


def empty() -> Array:
    """Counts of no losses: int64, of the bin below, BINS, and of the bin above."""
    return np.zeros(BINS + 2, np.int64)


def add(counts: Array, losses: Array) -> None:
    """Count float64 ``losses``, none of them NaN."""
    shift = 52 - _SUB_BITS
    bits = np.ascontiguousarray(losses, np.float64).view(np.int64) >> shift
    bins = np.clip(bits - ((1023 + _FIRST) << _SUB_BITS), -1, BINS) + 1
    np.add.at(counts, bins, 1)


def _coarse(counts: Array, edges: Array, low: float, high: float) -> dict[str, Any]:
    """Counts between ``edges``, which are some of EDGES; ``low`` and ``high``: extreme losses.

    The first bin goes down to 0, or ``low`` if that is less; what is above EDGES has its own bin.
    """
    inside = (
        np.add.reduceat(np.append(counts[1:-1], 0), np.searchsorted(EDGES, edges[:-1]))
        if len(edges) > 1
        else np.empty(0, np.int64)
    )
    ends = [float(edge) for edge in edges]
    numbers = inside.tolist()
    if counts[-1]:
        ends.append(max(high, ends[-1]))
        numbers.append(int(counts[-1]))
    below = int(counts[0])
    if ends[0] > 0.0 and (below or len(ends) == 1):
        ends.insert(0, min(low, 0.0))
        numbers.insert(0, below)
    return {"edges": ends, "counts": numbers}


def _used(counts: Array) -> tuple[int, int]:
    """First of the bins that hold a loss, and the end of the last; ``(0, 0)`` without any."""
    used = np.flatnonzero(counts[1:-1])
    return (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)


def logarithmic(counts: Array, low: float, high: float) -> dict[str, Any]:
    """Two bins an octave, where there are losses: ``edges``, and ``counts``, one less."""
    half = _SUB // 2
    first, end = _used(counts)
    edges = EDGES[first // half * half : -(-end // half) * half + 1 : half]
    return _coarse(counts, edges, low, high)


def linear(counts: Array, low: float, high: float) -> dict[str, Any]:
    """At most 32 bins from 0 to the largest loss: ``edges``, and ``counts``, one less.

    Their width is a power of two. Losses above EDGES have one more bin, and negative ones count in
    the first, which then begins at ``low``.
    """
    _, end = _used(counts)
    if not end:
        return _coarse(counts, EDGES[:1], low, high)
    octave = (end - 1) // _SUB + _FIRST
    width = math.ldexp(1.0 / _LINEAR, octave)
    numbers = np.append((EDGES[:end] / width).astype(np.int64), 0)
    bins = np.zeros(numbers.max() + 1, np.int64)
    np.add.at(bins, numbers[:-1], counts[1 : end + 1])
    bins[0] += counts[0]
    ends, found = [width * i for i in range(len(bins) + 1)], bins.tolist()
    ends[0] = min(low, 0.0)
    if counts[-1]:
        ends.append(max(high, float(EDGES[-1])))
        found.append(int(counts[-1]))
    return {"edges": ends, "counts": found}


def quantile(counts: Array, share: float, low: float, high: float) -> dict[str, float]:
    """Bounds of the loss that a ``share`` of all does not exceed, and a ``value`` between them.

    That loss is number ``ceil(share * n)`` of n in ascending order; it is between ``low`` and
    ``high``, the edges of its bin, which are 1.6 % apart (or the extreme losses, where those
    are closer). The value takes the losses of a bin as evenly spread. NaN without losses.
    """
    total = int(counts.sum())
    if not total:
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    number = max(1, math.ceil(share * total))
    sums = np.cumsum(counts)
    at = int(np.searchsorted(sums, number))
    lower = low if at == 0 else max(low, float(EDGES[at - 1]))
    upper = high if at > BINS else min(high, float(EDGES[at]))
    part = (number - int(sums[at] - counts[at]) - 0.5) / int(counts[at])
    if math.isinf(upper) or math.isinf(lower):
        value = upper if lower == upper else (lower if math.isfinite(lower) else upper)
    else:
        value = lower + (upper - lower) * part
    return {"value": value, "low": lower, "high": upper}
