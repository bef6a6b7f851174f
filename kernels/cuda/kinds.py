"""What a kernel is compiled for, in what shape it is launched, and on what."""

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
    """``capped``: logits are softly capped. ``smooth``: there is a sum over all classes' log
    probabilities, and with ``soft`` it is over class probabilities. ``more``: entropy, rank and
    prediction are wanted.
    """

    dtype: DType
    capped: bool = False
    smooth: bool = False
    soft: bool = False
    more: bool = False

    @property
    def real(self) -> Any:
        """What sums over classes are computed in, as a NumPy type."""
        return self.dtype.result.type

    @property
    def number(self) -> Any:
        """``real``, as a type of Numba's."""
        return types.float64 if self.dtype is FLOAT64 else types.float32


class Shape(NamedTuple):
    """Rows of up to ``classes``: ``lanes`` threads share one, ``threads`` make a block."""

    classes: int
    lanes: int
    threads: int


class Table(NamedTuple):
    """``segment``: classes that one block takes of a longer row; ``plane_segment``: classes that
    one thread takes of strided ones; ``threads``: a block of all other kernels; ``odd_blocks``:
    the most that share what is left to ``careful``.
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
    """How rows of so many contiguous classes are walked."""
    return next(shape for shape in TABLE.rows if classes <= shape.classes)


def segments_of(classes: int, rows: bool) -> int:
    """In how many segments a position's classes are summed: contiguous ``rows``, or planes."""
    return -(-classes // (TABLE.segment if rows else TABLE.plane_segment))
