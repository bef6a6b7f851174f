"""Arguments of the CPU kernels: plain tuples, which Numba takes apart for free."""

from __future__ import annotations

from typing import Any, NamedTuple

from kernels.options import Options
from kernels.plan import View


class Labels(NamedTuple):
    """Class indices of any integer width: the array of that width, and empty ones of the others.

    ``given`` is their number. ``mask`` undoes the sign extension of unsigned labels (-1 for
    signed ones). ``ignores`` is false where no label of that type can equal ``ignore_index``.
    ``sample_weight`` is float64, one a position, or empty.
    """

    int8s: Any
    int16s: Any
    int32s: Any
    int64s: Any
    given: int
    mask: int
    ignores: bool
    ignore_index: int
    sample_weight: Any


class Results(NamedTuple):
    """Arrays that kernels write, with one value a position; unwanted ones are empty.

    ``blocks`` holds a (loss, weight) for each block of ``kernels.reduce``, ``bad[share]`` the
    first position with an impossible label. ``sequence`` is the index of each position's sequence,
    and ``sequence_greedy`` has an element for each sequence. The others are those of
    ``plan.PER_POSITION``.
    """

    blocks: Any
    bad: Any
    sequence: Any
    sequence_greedy: Any
    losses: Any
    weights: Any
    per_element: Any
    log_sum_exp: Any
    entropy: Any
    rank: Any
    prediction: Any


class Scratch(NamedTuple):
    """Memory of each worker: a tile's labels, ``tile``'s rows, three registers of the type that the
    logits are computed in; and ``plain``'s rows, its copies of logits, and 16 places of rows.
    """

    labels: Any
    tiles: Any
    lanes: Any
    floats: Any
    columns: Any
    starts: Any


class Operands(NamedTuple):
    """All arguments of a kernel for one piece, but for the share of it.

    ``tile`` is a tile's number of positions. ``soft`` holds class probabilities, with empty data
    where ``labels`` (class indices) count; with neither, only outputs that need no label are
    computed. ``log_probs`` and ``gradient`` lie in memory as ``logits`` do, or are empty.
    """

    tile: int
    logits: View
    soft: View
    labels: Labels
    options: Options
    results: Results
    log_probs: View
    gradient: View
    scratch: Scratch
