"""Sequences whose labels are all the likeliest classes.

A label is compared with the logits of its position while these are in cache, and only where that
may decide: not in a sequence that has missed before, nor where its probability is above one half.
"""

from __future__ import annotations

import math
from typing import Any

from kernels.compiled import called, inlined
from kernels.cpu.sums.rows import BLOCK
from kernels.cpu.tile import CAREFUL, LOG_PROB
from kernels.plan import place
from kernels.simd import constant, element, load_first, max_across, maximum, width

# Log-probability, in base 2, above which no other class is as likely, rounding included.
_SURE = -0.99


@called
def _leads_row(logits: Any, position: int, y: int) -> bool:
    """Return True if label ``y`` has rank 0 (``outputs.rows.rank``) among contiguous classes."""
    x, first = logits.data, place(logits, position)
    own, lowest = element(x, first + y), constant(x, -math.inf)
    for side in range(2):
        begin, end = (0, y) if side == 0 else (y + 1, logits.classes)
        for start in range(begin, end, BLOCK):
            stop, largest = min(start + BLOCK, end), lowest
            for i in range(start, stop, width(x)):
                largest = maximum(load_first(x, first + i, stop - i, lowest), largest)
            best = max_across(largest)
            if best > own or (side == 0 and best == own):
                return False
    return True


@called
def _leads(logits: Any, position: int, y: int) -> bool:
    """``_leads_row`` for any stride, and for logits of which some may be NaN."""
    x, first, stride = logits.data, place(logits, position), logits.class_stride
    own = element(x, first + y * stride)
    for c in range(logits.classes):
        raw = element(x, first + c * stride)
        if math.isnan(raw) or raw > own or (raw == own and c < y):
            return False
    return True


@inlined
def any_greedy(results: Any, lo: int, count: int) -> bool:
    """Return True if one of ``count`` positions is of a sequence that has not missed yet."""
    if results.sequence.size:
        for i in range(lo, lo + count):
            if results.sequence_greedy[results.sequence[i]] != 0:
                return True
    return False


@inlined
def judge_sequences(operands: Any, lo: int, count: int, label: Any, scratch: Any, at: int) -> None:
    """Clear ``results.sequence_greedy`` of sequences that miss in these ``count`` positions.

    Threads may clear one at once: all write the same.
    """
    logits, results = operands.logits, operands.results
    for i in range(count):
        y = label[at + i]
        if y < 0 or results.sequence_greedy[results.sequence[lo + i]] == 0:
            continue
        careful = scratch[CAREFUL, at + i] != 0.0
        if not careful and scratch[LOG_PROB, at + i] > _SURE:
            continue
        if careful or logits.class_stride != 1:
            leads = _leads(logits, lo + i, y)
        else:
            leads = _leads_row(logits, lo + i, y)
        if not leads:
            results.sequence_greedy[results.sequence[lo + i]] = 0
