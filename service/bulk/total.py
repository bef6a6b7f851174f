"""Total of partials: what is known of the corpus up to a position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.reduce import BLOCK, add_blocks, sum_all_blocks
from kernels.report.exact import ExactSums
from service.bulk.partial import (
    COUNTS,
    EXACT,
    WORST,
    Batch,
    decoded,
    exact_of,
    packed,
    worst_of,
)

# Partials that are added at a time: some MB, which stay in cache.
TOGETHER = 256


class Total:
    """Sum of the partials of the positions [0, ``position``).

    ``counts`` has ``COUNTS``; ``loss`` and ``weight`` are ``kernels.reduce.SCALE`` times the sums
    of whole blocks; ``edge`` has the (loss, weight) of the positions after those, a row each.
    ``most`` is how many of the worst are kept.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.position = 0
        self.counts = dict.fromkeys(COUNTS, 0)
        self.loss, self.weight = 0.0, 0.0
        self.edge = np.empty((0, 2))
        self.exact = ExactSums(len(EXACT))
        self.worst = np.empty(0, WORST)

    def add(self, parts: Sequence[bytes]) -> None:
        """Add partials in the order of their positions, without gaps. Raises ``ValueError``."""
        for at in range(0, len(parts), TOGETHER):
            self._add(decoded(parts[at : at + TOGETHER]))

    def _add(self, batch: Batch) -> None:
        headers = batch.headers
        befores = np.concatenate([[self.position], headers["stop"][:-1]])
        if (headers["first"] != befores).any():
            raise ValueError("partials are not in the order of their positions")
        self._add_blocks(batch)
        for name in COUNTS:
            self.counts[name] += int(headers[name].sum())
        self.exact.merge(exact_of(headers, batch.limbs))
        if len(batch.worst):
            self.worst = worst_of(np.concatenate([self.worst, batch.worst]), self.most)
        self.position = int(headers["stop"][-1])

    def _add_blocks(self, batch: Batch) -> None:
        """Add block sums in order: those that partials have, and those of edges, which join."""
        headers = batch.headers
        edges = np.concatenate([self.edge, batch.edges])
        shared = edges[: len(edges) // BLOCK * BLOCK]
        base = self.position // BLOCK
        sums = np.empty((int(headers["stop"][-1]) // BLOCK - base, 2))
        of_edges = np.ones(len(sums), bool)
        heads = np.minimum(-headers["first"] % BLOCK, headers["stop"] - headers["first"])
        places = ((headers["first"] + heads) // BLOCK - base).tolist()
        begin = 0
        for place, count in zip(places, headers["blocks"].tolist(), strict=True):
            if count:
                sums[place : place + count] = batch.blocks[begin : begin + count]
                of_edges[place : place + count] = False
                begin += count
        sums[of_edges] = sum_all_blocks(shared.T)
        whole = np.concatenate([[[self.loss, self.weight]], sums])
        self.loss, self.weight = add_blocks(whole)
        self.edge = edges[len(shared) :].copy()

    def sums(self) -> tuple[float, float]:
        """``kernels.reduce.SCALE`` times the sums of losses and weights."""
        rest = add_blocks(sum_all_blocks(self.edge.T))
        return self.loss + rest[0], self.weight + rest[1]

    def to_bytes(self) -> bytes:
        """The state, which ``from_bytes`` reads."""
        sums = np.array([self.loss, self.weight])
        none = np.empty((0, 2))
        return packed(
            0, self.position, self.counts, sums, self.edge, none, self.exact, self.worst
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, content: bytes, most: int) -> Total:
        """The total of which ``to_bytes`` made ``content``. Raises ``ValueError``."""
        batch = decoded([content])
        header = batch.headers[0]
        total = cls(most)
        total.position = int(header["stop"])
        total.counts = {name: int(header[name]) for name in COUNTS}
        total.loss, total.weight = float(header["loss"]), float(header["weight"])
        total.edge, total.worst = batch.edges.copy(), batch.worst.copy()
        total.exact.merge(exact_of(batch.headers, batch.limbs))
        return total
