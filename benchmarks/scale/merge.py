"""Merge of a million partials, and their journal: ``python -m benchmarks.scale.merge``.

The partials are those of pieces of 256 MiB of float32 logits with 32000 classes; the journal takes
as many at a time as arrive together.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kernels.reduce import BLOCK
from kernels.report.exact import ExactSums
from service.bulk.journal import Journal
from service.bulk.partial import COUNTS, EXACT, WORST, Partial
from service.bulk.plan import Job, Plan
from service.bulk.total import TOGETHER, Total

PARTIALS, POSITIONS, WORST_KEPT = 1_000_000, 2096, 5
# Seconds that the merge may take.
MOST = 5.0
# Partials that a journal is given at a time.
ARRIVALS = 16
_SPAN = struct.Struct("<2q")  # first and stop, behind the version


def templates(positions: int) -> list[bytes]:
    """Partials of neighbouring pieces, until one begins at a block's begin again."""
    generator, found = np.random.default_rng(0), list[bytes]()
    while not found or len(found) * positions % BLOCK:
        values = np.stack([generator.exponential(3.0, positions), np.ones(positions)])
        exact = ExactSums(len(EXACT))
        exact.add(np.arange(2), np.array([100.0, float(positions)]))
        worst = np.zeros(WORST_KEPT, WORST)
        worst["loss"] = np.sort(values[0])[: -WORST_KEPT - 1 : -1]
        counts = dict.fromkeys(COUNTS, positions)
        first = len(found) * positions
        found.append(Partial(first, counts, values, exact, worst).to_bytes())
    return found


def partials(count: int, positions: int = POSITIONS) -> Iterator[bytes]:
    """Partials of ``count`` pieces in a row, of so many ``positions`` each."""
    made = templates(positions)
    for number in range(count):
        one = bytearray(made[number % len(made)])
        _SPAN.pack_into(one, 8, number * positions, (number + 1) * positions)
        yield bytes(one)


def main() -> int:
    """Print the seconds; the exit status is 0 where the merge meets its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partials", type=int, default=PARTIALS)
    given = parser.parse_args()
    total, merging, size = Total(WORST_KEPT), 0.0, 0
    batch: list[bytes] = []
    for part in partials(given.partials):
        batch.append(part)
        size += len(part)
        if len(batch) == TOGETHER:
            started = time.perf_counter()
            total.add(batch)
            merging += time.perf_counter() - started
            batch = []
    started = time.perf_counter()
    total.add(batch)
    merging += time.perf_counter() - started
    print(f"{given.partials:,} partials, {size / 1e6:,.0f} MB: merged in {merging:.2f} s")
    some = list(partials(given.partials // 20))
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal", Plan(Job({}, {}, WORST_KEPT), []))
        started = time.perf_counter()
        for at in range(0, len(some), ARRIVALS):
            journal.save(list(enumerate(some[at : at + ARRIVALS], at)))
        seconds = time.perf_counter() - started
        journal.close()
    each = seconds / len(some) * 1e6
    print(f"{len(some):,} partials, {ARRIVALS} at a time: {each:.1f} us each in the journal")
    return int(merging > MOST)


if __name__ == "__main__":
    sys.exit(main())
