"""Snapshot: what all processes of a server have counted, added up at one moment."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from service.telemetry import exemplars, layout, totals
from service.telemetry.counters import description
from service.telemetry.exemplars import Exemplar
from service.telemetry.memory import OWNER, SINCE, STARTED, Table
from service.telemetry.totals import Cells


@dataclass
class Snapshot:
    """Sums over the rows of a table.

    ``totals`` are those before ``layout.ROUTES``, ``routes`` the block of each route,
    ``counters`` and ``gauges`` by the names of ``layout``; gauges, ``states`` and ``processes``
    are of the processes that live. ``owner`` is the process that started the others, or that serves
    alone.
    """

    started: int
    since: float
    owner: int
    totals: Cells = field(default_factory=lambda: np.zeros(layout.ROUTES, np.int64))
    routes: dict[str, Cells] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)
    gauges: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    processes: list[int] = field(default_factory=list)
    exemplars: dict[str, dict[int, Exemplar]] = field(default_factory=dict)
    builds: list[dict[str, str]] = field(default_factory=list)

    def add(self, row: memoryview) -> None:
        """Add the counts of a row, and its gauges if its process lives."""
        told = description(row)
        if told is None:
            return
        counted = totals.of_row(row)
        self.totals += counted[: layout.ROUTES]
        for index, name in enumerate(told["routes"]):
            self._add_route(row, name, counted, layout.ROUTES + layout.BLOCK * index)
        for name, cell in layout.COUNTER.items():
            self.counters[name] += row[cell]
        if row[layout.PID]:
            self.processes.append(row[layout.PID])
            self.states[layout.STATES[row[layout.STATE]]] += 1
            for name, cell in layout.GAUGE.items():
                self.gauges[name] += row[cell]
            if told["build"] and told["build"] not in self.builds:
                self.builds.append(told["build"])

    def _add_route(self, row: memoryview, name: str, counted: Cells, at: int) -> None:
        block = counted[at : at + layout.BLOCK]
        if not block.any():
            return
        if name in self.routes:
            last = max(self.routes[name][layout.LAST], block[layout.LAST])
            self.routes[name] = self.routes[name] + block
            self.routes[name][layout.LAST] = last
        else:
            self.routes[name] = block
        found = self.exemplars.setdefault(name, {})
        for bucket, exemplar in exemplars.of_route(row, at):
            if bucket not in found or found[bucket].at < exemplar.at:
                found[bucket] = exemplar


def taken(table: Table) -> Snapshot:
    """Take a snapshot of all rows of ``table``."""
    cells = table.cells
    snapshot = Snapshot(started=cells[STARTED], since=cells[SINCE] / 1e9, owner=cells[OWNER])
    for row in table.rows():
        snapshot.add(row)
    return snapshot
