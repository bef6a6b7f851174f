"""Memory that the processes of a server share: a table with a row of cells for each of them.

A process writes its own row and no other, one aligned cell at a time, so no update is lost and no
cell is read half-written. Rows of processes that have ended keep their totals; the next process
that is given the row goes on from there.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from multiprocessing.reduction import DupFd
from typing import Any

from service.telemetry import layout

# Processes that may run at a time: as many workers as the settings allow, twice.
ROWS = 128
# Cells before the rows: the owner's process, workers that were started, the time of the start in
# nanoseconds since 1970, and rows that were ever used.
OWNER, STARTED, SINCE, USED = range(4)
_HEADER = mmap.PAGESIZE // 8
_ROW = -(-layout.CELLS // _HEADER) * _HEADER


class Table:
    """Table of ``ROWS`` rows of ``layout.CELLS`` cells; pickled for a process that is spawned."""

    def __init__(self, descriptor: int | None = None) -> None:
        size = 8 * (_HEADER + _ROW * ROWS)
        self.descriptor = _file(size) if descriptor is None else descriptor
        self._memory = mmap.mmap(self.descriptor, size)
        self.cells = memoryview(self._memory).cast("Q")
        if descriptor is None:
            self.cells[OWNER] = os.getpid()
            self.cells[SINCE] = time.time_ns()

    def __reduce__(self) -> Any:
        return _received, (DupFd(self.descriptor),)

    def row(self, number: int) -> memoryview:
        """Cells of row ``number``."""
        start = _HEADER + _ROW * number
        return self.cells[start : start + layout.CELLS]

    def rows(self) -> list[memoryview]:
        """List the rows that were ever used."""
        return [self.row(number) for number in range(self.cells[USED])]

    def assign(self) -> int:
        """Choose a row for a process that is to be started, and count it as started.

        Only the table's owner calls this, and ``retire``. Raises ``RuntimeError`` where all rows
        are of processes that run.
        """
        cells, used = self.cells, self.cells[USED]
        free = [number for number in range(used) if not self.row(number)[layout.PID]]
        if not free and used == ROWS:
            raise RuntimeError(f"no more than {ROWS} processes can count their requests")
        number = free[0] if free else used
        # Until the process has its own number: the row is taken.
        self.row(number)[layout.PID] = os.getpid()
        cells[USED] = max(used, number + 1)
        cells[STARTED] += 1
        return number

    def retire(self, number: int) -> None:
        """Note that the process of row ``number`` has ended."""
        row = self.row(number)
        row[layout.PID] = 0
        for cell in layout.GAUGE.values():
            row[cell] = 0


def _received(given: Any) -> Table:
    return Table(given.detach())


def _file(size: int) -> int:
    """Open a file of ``size`` zeros that has no name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("lossd-metrics")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
