"""Scratch of ``plain``: what a worker keeps of a tile, in float32."""

from __future__ import annotations

from typing import Any

# Rows, one value a position: the label (-1: ignored), its logit, the negated shift, sum(2**t), the
# loss in base 2.
LABEL, VALUE, MINUS, TOTAL, LOSS = range(5)
ROWS = 5
WIDTH = 16
# Classes: rows of more are not read twice; planes of more are too many lines for L2.
MOST_IN_ROWS = 4096
MOST_IN_PLANES = 256
# Classes: rows of more are summed as rows.
MOST_TRANSPOSED = 16
# Float32 numbers of WIDTH rows, transposed.
COLUMNS = WIDTH * MOST_TRANSPOSED


def columns_of(view: Any, positions: int) -> int:
    """Number of float32 that ``scratch.columns`` needs for a tile of ``positions``."""
    if view.class_stride == 1 or view.classes > MOST_IN_PLANES:
        return 3 * COLUMNS  # and as many as rows are summed together, two registers each
    return max(view.classes, WIDTH) * ((positions + 2 * WIDTH) // WIDTH * WIDTH)
