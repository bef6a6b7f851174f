"""Totals: requests of a row's journal, added up.

To count a request in its 20 cells would take 2 us of each: so its times and sizes are written into
a journal, and added to the totals when that is full, a thousand at a time by NumPy, in 0.3 us each.
Readers add what the journal holds by themselves: nothing is missing from what they see.

There are two copies of the totals, of which the number of additions chooses one. The other is
written first, then the number: a process that is killed in between leaves whole totals, and its
journal.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from service.telemetry import entry, layout
from service.telemetry.layout import ADDED, COUNTED, ENTRIES, SIZE, WRITTEN
from service.telemetry.names import PHASES

Cells = np.ndarray[Any, np.dtype[np.int64]]

_BOUNDS = np.array(layout.BOUNDS)


def of_row(row: memoryview) -> Cells:
    """Copy the totals of a row, its journal included; the process that it is of may go on."""
    cells = np.frombuffer(row, np.int64)
    while True:
        added, written = cells[ADDED], cells[WRITTEN]
        totals = _copy(cells, added).copy()
        journal = cells[layout.JOURNAL : layout.TOTALS].copy()
        # Entries are only written over once they are added.
        if cells[ADDED] == added:
            break
    _add(totals, _pending(journal, int(totals[COUNTED]), int(written)))
    return totals


def add_journal(row: memoryview) -> None:
    """Add what the journal holds to the totals, in the process that the row is of."""
    cells = np.frombuffer(row, np.int64)
    added = int(cells[ADDED])
    totals = _copy(cells, added + 1)
    totals[:] = _copy(cells, added)
    journal = cells[layout.JOURNAL : layout.TOTALS]
    _add(totals, _pending(journal, int(totals[COUNTED]), int(cells[WRITTEN])))
    row[ADDED] = added + 1


def _copy(cells: Cells, added: int) -> Cells:
    start = layout.TOTALS + SIZE * (int(added) % 2)
    return cells[start : start + SIZE]


def _pending(journal: Cells, counted: int, written: int) -> Cells:
    """Entries that are not in the totals yet, a column each."""
    numbers = np.arange(counted, written) % ENTRIES
    return journal.reshape(ENTRIES, entry.LENGTH)[numbers].T


def _add(totals: Cells, given: Cells) -> None:
    count = given.shape[1]
    if not count:
        return
    totals[COUNTED] += count
    pairs: list[tuple[Cells, Any]] = [
        (given[entry.STATUS], 1),
        *_observed(given[entry.ROUTE] + layout.DURATION, given[entry.ENDED] - given[entry.BEGAN]),
        (given[entry.FORMAT], given[entry.RECEIVED_BYTES]),
        (given[entry.REPLY], given[entry.SENT_BYTES]),
    ]
    refused = given[entry.PROBLEM]
    pairs.append((refused[refused > 0], 1))
    computed = given[:, given[entry.WORK] > 0]
    if computed.size:
        pairs += _computed(computed, totals)
    cells = np.concatenate([cells for cells, _ in pairs])
    amounts = [np.broadcast_to(amount, cells.shape) for cells, amount in pairs]
    np.add.at(totals, cells, np.concatenate(amounts))


def _computed(given: Cells, totals: Cells) -> list[tuple[Cells, Any]]:
    route, work = given[entry.ROUTE], given[entry.WORK]
    pairs: list[tuple[Cells, Any]] = []
    for name, spent in zip(PHASES, phases(given), strict=True):
        pairs += _observed(route + layout.PHASE[name], spent)
    # The clock of all processes counts from the same moment.
    since = (time.time_ns() - time.perf_counter_ns()) // 1_000_000
    np.maximum.at(totals, route + layout.LAST, given[entry.ENDED] // 1_000_000 + since)
    return [
        *pairs,
        (work, given[entry.LOGITS]),
        (work + layout.TO_POSITIONS, given[entry.POSITIONS]),
        (route + layout.ROWS, given[entry.ROWS]),
        (route + layout.SPENT, given[entry.ENDED] - given[entry.BEGAN]),
    ]


def phases(given: Any) -> tuple[Any, ...]:
    """Nanoseconds of each of ``names.PHASES`` of a computed request, from its entry.

    Receiving and decoding may go on while the first steps are computed.
    """
    (began, leased, head, received, decoding, decoded, computing, computed, encoded, ended) = given[
        entry.BEGAN :
    ]
    return (
        received - leased + head,
        leased - began - head + computing - decoded,
        decoded - decoding,
        computed - computing,
        encoded - computed,
        ended - encoded,
    )


def _observed(at: Cells, values: Cells) -> list[tuple[Cells, Any]]:
    return [(at + np.searchsorted(_BOUNDS, values), 1), (at + layout.SUM, values)]
