"""Partials: what is kept of the losses of a piece, and their sum in the order of the pieces.

Losses and weights are added as ``kernels.reduce`` adds them: within blocks of ``BLOCK`` positions,
counted from the first position of the corpus, and then block after block. So a partial has the sum
of each whole block in it, and the values of the two blocks that its neighbours share ("edges"), at
most 31 at either end. All else are integers, exact sums, and the positions of most loss. A total
therefore has the bits of one ``LossAccumulator`` that is fed all rows in order, wherever the corpus
was cut.

Bytes of a partial are little-endian words of 8 bytes: the header, then its sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels.reduce import BLOCK, sum_all_blocks
from kernels.report.exact import ExactSums
from service.codecs.base import Array

VERSION = 1
# Exact sums: weights of the elements that are right and of all that count, as the accuracy takes
# them, and the perplexities of sequences.
EXACT = ("right", "counted", "perplexities")
_ODD = ("nan", "plus", "minus")
# Whole numbers that add up. Of sequences: those with elements that count, those of them whose
# labels are all the likeliest class, and those whose weights are not 0 in all, which have a
# perplexity.
COUNTS = ("count", "elements", "ignored", "sequences", "greedy", "weighed")
# Lengths of the sections, in rows.
_SECTIONS = ("edges", "blocks", "limbs", "worst")
HEADER = np.dtype(
    [
        ("version", "<i8"),
        ("first", "<i8"),
        ("stop", "<i8"),
        *((name, "<i8") for name in COUNTS),
        ("loss", "<f8"),
        ("weight", "<f8"),
        ("limb", "<i8"),  # number of the first limb
        ("odd", "<i8", (len(_ODD), len(EXACT))),
        *((name, "<i8") for name in _SECTIONS),
    ]
)
WORST = np.dtype([("loss", "<f8"), ("position", "<i8"), ("label", "<i8"), ("predicted", "<i8")])
# Words of a section, about, above which a copy takes less time than their indices.
_LONG = 64
_WORDS = {"edges": 2, "blocks": 2, "limbs": len(EXACT), "worst": WORST.itemsize // 8}


class Partial(NamedTuple):
    """Losses of the positions [first, stop) of the corpus.

    ``counts`` has ``COUNTS``. ``values`` are float64 losses and weights, shape (2, positions), as a
    ``LossAccumulator`` adds them. ``exact`` has a group for each of ``EXACT``; ``worst`` are
    records of ``WORST``, the worst first.
    """

    first: int
    counts: dict[str, int]
    values: Array
    exact: ExactSums
    worst: Array

    def to_bytes(self) -> bytes:
        """Bytes that ``Total.add`` takes."""
        size = self.values.shape[1]
        head, whole = cut(self.first, size)
        middle = self.values[:, head : head + whole * BLOCK]
        edges = np.concatenate([self.values[:, :head], self.values[:, head + whole * BLOCK :]], 1)
        blocks = sum_all_blocks(middle)
        return packed(
            self.first, self.first + size, self.counts, self.values.sum(1), edges.T, blocks,
            self.exact, self.worst,
        )  # fmt: skip


def cut(first: int, size: int) -> tuple[int, int]:
    """Number of positions before the first whole block, and of whole blocks."""
    head = min(-first % BLOCK, size)
    return head, (size - head) // BLOCK


def blank(first: int, stop: int) -> bytes:
    """Partial of positions that are not there: they count as if they were ignored."""
    counts = dict.fromkeys(COUNTS, 0)
    values = np.zeros((2, stop - first))
    return Partial(first, counts, values, ExactSums(len(EXACT)), np.empty(0, WORST)).to_bytes()


def packed(
    first: int, stop: int, counts: dict[str, int], sums: Array, edges: Array, blocks: Array,
    exact: ExactSums, worst: Array,
) -> bytes:  # fmt: skip
    """Bytes of a partial, or of a total; ``edges`` and ``blocks`` have a (loss, weight) a row."""
    arrays = exact.arrays()
    limbs = np.ascontiguousarray(arrays["limbs"], "<i8")
    header = np.zeros((), HEADER)
    header["version"], header["first"], header["stop"] = VERSION, first, stop
    for name in COUNTS:
        header[name] = counts[name]
    header["loss"], header["weight"] = sums
    header["limb"] = arrays["first"]
    header["odd"] = [arrays.get(name, np.zeros(len(EXACT), np.int64)) for name in _ODD]
    sections = {"edges": edges, "blocks": blocks, "limbs": limbs, "worst": worst}
    for name, section in sections.items():
        header[name] = len(section)
    return b"".join([header.tobytes(), *(section.tobytes() for section in sections.values())])


class Batch(NamedTuple):
    """Partials decoded together: a header each, and the rows of all sections in order."""

    headers: Array
    edges: Array
    blocks: Array
    limbs: Array
    worst: Array


def decoded(parts: Sequence[bytes]) -> Batch:
    """Decode ``parts``, all at once. Raises ``ValueError`` for bytes that are no partials."""
    sizes = np.fromiter(map(len, parts), np.int64, len(parts))
    if (sizes % 8).any() or (sizes < HEADER.itemsize).any():
        raise ValueError("not the bytes of partials")
    words = np.frombuffer(b"".join(parts), "<i8")
    ends = np.cumsum(sizes // 8)
    starts = ends - sizes // 8
    each = HEADER.itemsize // 8
    headers = np.ascontiguousarray(words[starts[:, None] + np.arange(each)]).view(HEADER)[:, 0]
    lengths = [headers[name] * _WORDS[name] for name in _SECTIONS]
    alike = (headers["version"] == VERSION) & (starts + each + sum(lengths) == ends)
    if not alike.all() or any((some < 0).any() for some in lengths):
        raise ValueError("not the bytes of partials, or those of another version")
    at, sections = starts + each, {}
    for name, some in zip(_SECTIONS, lengths, strict=True):
        sections[name] = _rows(words, at, some).reshape(-1, _WORDS[name])
        at = at + some
    edges, blocks, limbs, worst = sections.values()
    return Batch(
        headers, edges.view("<f8"), blocks.view("<f8"), limbs,
        np.ascontiguousarray(worst).view(WORST)[:, 0] if len(worst) else np.empty(0, WORST),
    )  # fmt: skip


def _rows(words: Array, starts: Array, lengths: Array) -> Array:
    """Ranges of ``words``: by their indices where they are short, else copied one by one."""
    if lengths.sum() < _LONG * len(lengths):
        return words[ranges(starts, lengths)]
    stops = (starts + lengths).tolist()
    parts = [words[a:b] for a, b in zip(starts.tolist(), stops, strict=True)]
    return np.concatenate([words[:0], *parts])


def ranges(starts: Array, lengths: Array) -> Array:
    """Indices of the ranges of ``lengths`` from ``starts`` on, one after the other."""
    before = np.cumsum(lengths) - lengths
    found: Array = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return found


def worst_of(records: Array, most: int) -> Array:
    """The ``most`` worst of ``records``: NaN first, then by loss, and of equals the first."""
    losses = records["loss"]
    nan = np.isnan(losses)
    keys = np.where(nan, np.inf, losses)
    if len(records) > 4 * most > 0:
        # A full sort of a million elements would take longer than their losses.
        chosen = np.flatnonzero(keys >= np.partition(keys, -most)[-most])
        records, nan, keys = records[chosen], nan[chosen], keys[chosen]
    order = np.lexsort((records["position"], -keys, ~nan))
    worst: Array = records[order[:most]]
    return worst


def exact_of(headers: Array, limbs: Array) -> ExactSums:
    """Sum of the exact sums of partials."""
    lengths = headers["limbs"]
    numbers = ranges(headers["limb"], lengths)
    low = int(numbers.min(initial=0)) if len(numbers) else 0
    dense = np.zeros((int(numbers.max(initial=low)) - low + 1, len(EXACT)), np.int64)
    np.add.at(dense, numbers - low, limbs)
    odd: dict[str, Any] = dict(zip(_ODD, headers["odd"].sum(0), strict=True))
    return ExactSums.from_arrays({"first": np.array(low), "limbs": dense, **odd})
