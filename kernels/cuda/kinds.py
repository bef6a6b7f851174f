"""Compile-time choices of kernels, launch shapes, and the target: hardware or simulator."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from numba import types
from numba.cuda.core import config

from kernels.dtypes import FLOAT64, DType

SIMULATED = bool(config.ENABLE_CUDASIM)
# A small loss is a few blocks, and Numba would warn of each launch that leaves a GPU idle.
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
target: Any = import_module("kernels.cuda." + ("simulated" if SIMULATED else "hardware"))


class Kind(NamedTuple):
    """Compile-time choices of a kernel.

    ``capped``: logits are softly capped. ``smooth``: the loss has a sum over all classes'
    log-probabilities; ``soft``: labels are class probabilities. ``more``: entropy, rank or
    prediction is wanted. ``focal``: losses have a focal factor, which takes registers.
    """

    dtype: DType
    capped: bool = False
    smooth: bool = False
    soft: bool = False
    more: bool = False
    focal: bool = False

    @property
    def real(self) -> Any:
        """NumPy type that sums over classes are computed in."""
        return self.dtype.result.type

    @property
    def number(self) -> Any:
        """Numba's type for ``real``."""
        return types.float64 if self.dtype is FLOAT64 else types.float32


class Shape(NamedTuple):
    """Launch shape of rows of up to ``classes``: ``lanes`` threads share a row, and a block has
    ``threads``.
    """

    classes: int
    lanes: int
    threads: int


class Table(NamedTuple):
    """Launch shapes.

    ``segment``: classes of a longer row that one block sums; ``plane_segment``: strided classes
    that one thread sums; ``threads`` of a block in all other kernels; ``odd_blocks``: the most
    blocks that ``careful`` takes.
    """

    rows: tuple[Shape, ...]
    segment: int
    plane_segment: int
    threads: int
    odd_blocks: int


# A row's threads, segments and their order depend on its classes alone, and so do its bits. Few
# lanes for short rows, or most would have nothing to read; from 1024 classes on a block a row, of
# few warps while there are few vectors; segments of 8192, so that 8 rows of 131072 make 128 blocks.
_TABLE = Table(
    rows=(
        Shape(16, 4, 128),
        Shape(64, 8, 128),
        Shape(256, 16, 128),
        Shape(1024, 32, 128),
        Shape(4096, 128, 128),
        Shape(2**63, 256, 256),
    ),
    segment=8192,
    plane_segment=4096,
    threads=128,
    odd_blocks=512,
)
# Threads of Python take 0.1 ms each to start: as few as take every path.
_SIMULATED = Table(
    rows=(Shape(4, 1, 2), Shape(40, 2, 4), Shape(2**63, 4, 4)),
    segment=64,
    plane_segment=30,
    threads=4,
    odd_blocks=1,
)
TABLE = _SIMULATED if SIMULATED else _TABLE
# A grid has up to 65535 rows of blocks, on every capability: one for each segment of a position.
MOST_CLASSES = 65535 * min(TABLE.segment, TABLE.plane_segment)


def shape_of(classes: int) -> Shape:
    """Launch shape of rows of ``classes`` contiguous classes."""
    return next(shape for shape in TABLE.rows if classes <= shape.classes)


def segments_of(classes: int, rows: bool) -> int:
    """Number of segments of a position's classes, contiguous (``rows``) or strided."""
    return -(-classes // (TABLE.segment if rows else TABLE.plane_segment))
