"""Scratch of the CPU kernels: made once, and kept by each thread for its next losses."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from kernels.cpu import tile
from kernels.cpu.arguments import Scratch
from kernels.cpu.plain.scratch import ROWS, WIDTH, columns_of
from kernels.dtypes import DType
from kernels.plan import Array, View

# Bytes of two cache lines: the hardware fetches them in pairs.
LINES = 128
# Scratches that a thread keeps for its next losses; it drops all of them before it adds one more.
KEPT = 8
_KEPT = threading.local()


def apart(workers: int, rows: int, size: int, dtype: Any) -> Array:
    """Array of ``rows`` of at least ``size`` for each worker, of whole cache lines.

    Two workers that write to one line, or to neighbouring ones, wait for each other: that took
    40 % of the time of 500,000 x 100.
    """
    dtype = np.dtype(dtype)
    size = -(-size * dtype.itemsize // LINES) * LINES // dtype.itemsize
    flat = np.empty(workers * rows * size + LINES // dtype.itemsize, dtype)
    skipped = -flat.__array_interface__["data"][0] % LINES // dtype.itemsize
    return flat[skipped : skipped + workers * rows * size].reshape(workers, rows, size)


def scratch_of(workers: int, tile_size: int, view: View, dtype: DType) -> Scratch:
    """Scratch for ``workers``; a thread keeps what it used last."""
    columns = columns_of(view, tile_size)
    key = workers, tile_size, columns, dtype
    kept: dict[Any, Scratch] = _KEPT.__dict__
    if key in kept:
        return kept[key]
    tiles = apart(workers, tile.ROWS, tile_size + 2 * tile.SLACK, np.float64)
    tiles[...] = 1.0  # ignored positions keep what was there before: ones are harmless
    scratch = Scratch(
        apart(workers, 1, tile_size, np.int64)[:, 0],
        tiles,
        apart(workers, 3, WIDTH, dtype.result),
        apart(workers, ROWS, tile_size + 2 * tile.SLACK, np.float32),
        apart(workers, 1, columns, np.float32)[:, 0],
        apart(workers, 1, WIDTH, np.int64)[:, 0],
    )
    if len(kept) >= KEPT:
        kept.clear()
    kept[key] = scratch
    return scratch
