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


class Likeliest(NamedTuple):
    """Outputs of ``likeliest`` and what they are made with; unwanted arrays are empty.

    ``top_k`` classes of each position are the likeliest, 0 where they are not wanted, and
    ``chosen`` holds ``chosen_each`` classes, all in range, of each position or of all alike.
    ``compares``: some outputs but ``chosen_log_probs`` are wanted. Each worker has ``maxima``, a
    ``row`` of gathered classes where they are strided, ``marks``, ``keys`` of candidates and their
    ``ranks``, and the ``values`` and ``places`` of the
    classes found; reals are of the type that the logits are computed in.
    """

    top_k: int
    compares: bool
    chosen_each: int
    chosen: Any
    max_logit: Any
    confidence: Any
    margin: Any
    top_log_probs: Any
    top_classes: Any
    chosen_log_probs: Any
    maxima: Any
    row: Any
    marks: Any
    keys: Any
    ranks: Any
    values: Any
    places: Any


class Operands(NamedTuple):
    """All arguments of a kernel for one piece, but for the share of it.

    ``tile`` is a tile's number of positions. ``soft`` holds class probabilities, with empty data
    where ``labels`` (class indices) count; with neither, only outputs that need no label are
    computed. ``log_probs`` and ``gradient`` lie in memory as ``logits`` do, or are empty.
    ``likeliest`` is None where none of its outputs is wanted: kernels are compiled without them.
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
    likeliest: Likeliest | None = None
