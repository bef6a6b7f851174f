"""Counters of this process: its row, the cells of its routes, and gauges that are read in turn."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from struct import Struct
from typing import Any

from service.telemetry import layout
from service.telemetry.entry import LENGTH
from service.telemetry.layout import COUNTER, GAUGE
from service.telemetry.memory import Table
from service.telemetry.names import UNKNOWN
from service.telemetry.totals import add_journal

# Requests that are written into the journal at a time: one by one, each would take 3 us more, since
# what it needs is in no cache by then.
GATHERED = 64
_PACK = Struct(f"={LENGTH}q").pack_into

# Seconds between two looks at the gauges of a process, for scrapes that another one answers.
_FRESH_SECONDS = 0.25


class Counters:
    """Row ``number`` of ``table``, which this process alone writes.

    ``cells`` are the row's, ``journal`` the bytes of its journal; ``routes`` maps each route's
    path, or the path's template, to the first cell of its block. ``gauges`` are functions by name
    of ``layout.GAUGES``.
    """

    def __init__(self, table: Table, number: int) -> None:
        self.table = table
        self.cells = cells = table.row(number)
        self.journal = cells[layout.JOURNAL : layout.TOTALS].cast("B")
        # Entries of requests that ended, and are yet to be written.
        self.ended: list[list[int]] = []
        if json.loads(_described(cells) or b"{}").get("layout") != layout.VERSION:
            # The counts of another version: which they were, nobody can tell.
            cells[layout.DESCRIBED] = 0
            for cell in range(layout.PID + 1, layout.DESCRIPTION):
                cells[cell] = 0
        cells[layout.PID] = os.getpid()
        cells[layout.STATE] = 0
        self.gauges: dict[str, Callable[[], int]] = {}
        self.routes: dict[str, int] = {}
        self.labels: dict[int, str] = {}  # of routes, by the first cell of the block
        self._build: Mapping[str, str] = {}
        self._added = 0  # requests, to the totals: at the first chance, all that there are
        # What earlier processes of this row have used.
        self._before = {name: cells[COUNTER[name]] for name in layout.COUNTERS}
        self._add_routes([UNKNOWN])
        self.unknown = self.routes[UNKNOWN]

    def describe(self, routes: Mapping[str, str], build: Mapping[str, str]) -> None:
        """Name the ``routes`` of the application, each path by its label, and what it is built of.

        Where there are more than ``layout.MOST_ROUTES`` labels, the others count as unknown.
        """
        self._build = build
        self._add_routes(routes.values())
        for path, label in routes.items():
            self.routes[path] = self.routes.get(label, self.unknown)

    def _add_routes(self, routes: Iterable[str]) -> None:
        names = json.loads(_described(self.cells) or b"{}").get("routes", [])
        names += [name for name in dict.fromkeys(routes) if name not in names]
        del names[layout.MOST_ROUTES :]
        for index, name in enumerate(names):
            self.routes[name] = at = layout.ROUTES + layout.BLOCK * index
            self.labels[at] = name
        given = {"layout": layout.VERSION, "routes": names, "build": self._build}
        text = json.dumps(given).encode()
        area = self.cells[layout.DESCRIPTION :].cast("B")
        self.cells[layout.DESCRIBED] = 0  # readers skip the row meanwhile
        area[: len(text)] = text
        self.cells[layout.DESCRIBED] = len(text)

    def add(self, counter: str, count: int = 1) -> None:
        """Add ``count`` to one of ``layout.COUNTERS``."""
        self.cells[COUNTER[counter]] += count

    def state(self, name: str) -> None:
        """Note that this process is starting, ready or stopping."""
        self.cells[layout.STATE] = layout.STATES.index(name)

    def write(self) -> None:
        """Write the requests that ended into the journal, GATHERED at most."""
        cells, journal, ended = self.cells, self.journal, self.ended
        written = cells[layout.WRITTEN]
        for number, entry in enumerate(ended, written):
            _PACK(journal, 8 * LENGTH * (number % layout.ENTRIES), *entry)
        cells[layout.WRITTEN] = written + len(ended)  # from here on they are counted
        ended.clear()
        if written + 2 * GATHERED > self._added + layout.ENTRIES:
            add_journal(cells)
            self._added = cells[layout.WRITTEN]

    def refresh(self) -> None:
        """Bring the counts and the gauges up to date, and what the process took: 20 us."""
        self.write()
        cells = self.cells
        for name, read in self.gauges.items():
            cells[GAUGE[name]] = read()
        self._set("cpu", time.process_time_ns())
        for generation, found in enumerate(gc.get_stats()):
            for what, count in found.items():
                self._set(f"gc_{what}.{generation}", count)

    async def keep_fresh(self) -> None:
        """Bring the gauges up to date every 0.25 s, until cancelled."""
        while True:
            self.refresh()
            await asyncio.sleep(_FRESH_SECONDS)

    def _set(self, counter: str, count: int) -> None:
        self.cells[COUNTER[counter]] = self._before[counter] + count


def description(row: memoryview) -> dict[str, Any] | None:
    """Routes and versions of a row: None while it has none, or is of another version of the code.

    The members are ``routes``, the templates by the order of their blocks, and ``build``.
    """
    found: dict[str, Any] = json.loads(_described(row) or b"{}")
    return found if found.get("layout") == layout.VERSION else None


def _described(row: memoryview) -> bytes:
    size = row[layout.DESCRIBED]
    return bytes(row[layout.DESCRIPTION :].cast("B")[:size])


_here: Counters | None = None


def here() -> Counters:
    """Counters of this process: by default, of a table that no other process shares."""
    if _here is None:
        table = Table()
        use(table, table.assign())
    assert _here is not None
    return _here


def use(table: Table, number: int) -> None:
    """Count in row ``number`` of ``table`` from here on: before any request is served."""
    global _here
    _here = Counters(table, number)
