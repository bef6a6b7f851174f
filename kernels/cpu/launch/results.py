"""Arrays that the kernels of a loss write: of a whole problem, and the parts of a piece of it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels import reduce
from kernels.cpu.arguments import Results
from kernels.cpu.launch.views import LikeliestArrays, PerClass
from kernels.dtypes import DType
from kernels.plan import PER_POSITION, Array
from kernels.problem import Problem
from kernels.sequences import moved


class Outputs(NamedTuple):
    """Arrays of a problem.

    ``arrays`` are of ``PER_POSITION``, and "sequence_greedy", whose ``sequence`` each position is
    of; "losses" and "weights" are among them where positions are ``shared`` by threads.
    """

    shared: bool
    blocks: Array
    arrays: dict[str, Array]
    sequence: Array | None
    per_class: PerClass
    likeliest: LikeliestArrays

    def results(self, dtype: DType, first: int, count: int, shares: int) -> Results:
        """``Results`` for ``count`` positions from ``first`` on, of logits of ``dtype``."""
        parts = {name: array[first : first + count] for name, array in self.arrays.items()}
        if self.sequence is not None:
            parts["sequence"] = self.sequence[first : first + count]
            parts["sequence_greedy"] = self.arrays["sequence_greedy"]
        return _no_results(dtype)._replace(
            blocks=self.blocks[first // reduce.BLOCK :], bad=np.full(shares, count), **parts
        )


@lru_cache  # made anew it takes 8 us, of a small loss's 25
def _no_results(dtype: DType) -> Results:
    empty = {name: np.empty(0, kind or dtype.result) for name, kind in PER_POSITION.items()}
    none = np.empty(0, np.int64)
    return Results(np.empty((0, 2)), bad=none, sequence=none, sequence_greedy=none, **empty)


def outputs_of(problem: Problem, wanted: tuple[str, ...], shared: bool) -> Outputs:
    """Arrays for the outputs ``wanted``."""
    arrays = {
        name: np.empty(problem.positions, kind or problem.dtype.result)
        for name, kind in PER_POSITION.items()
        if name in wanted or (shared and name in ("losses", "weights"))
    }
    sequence = None
    if "sequence_greedy" in wanted:
        sequence = moved(problem.sequences.of, -problem.shift, 0).reshape(-1)
        arrays["sequence_greedy"] = np.ones(problem.sequences.size, np.int64)
    blocks = np.empty((-(-problem.positions // reduce.BLOCK), 2))
    per_class, likeliest = PerClass(problem, wanted), LikeliestArrays(problem, wanted)
    return Outputs(shared, blocks, arrays, sequence, per_class, likeliest)
