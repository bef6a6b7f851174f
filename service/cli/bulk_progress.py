"""Progress of bulk scoring: a bar on a terminal, else a line on stderr now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from service.bulk import run

# Seconds between two lines where stderr is no terminal.
EVERY = 30.0


class Shown:
    """Progress that is shown: of opening shards, then of pieces. ``clock`` is in seconds."""

    def __init__(self, progress: Progress, bar: bool) -> None:
        self._progress, self._bar = progress, bar
        self._task = progress.add_task("opening shards", total=None, details="")
        self._started = self._said = time.monotonic()

    def opening(self, total: int) -> None:
        self._started = time.monotonic()
        self._progress.update(self._task, total=total)

    def opened(self, number: int) -> None:
        self._progress.update(self._task, completed=number)

    def compiling(self) -> None:
        self._progress.update(self._task, description="compiling kernels", total=None)

    def scoring(self) -> None:
        self._started = self._said = time.monotonic()

    def told(self, progress: run.Progress) -> None:
        """Show ``progress`` of a run."""
        now = time.monotonic()
        text = details(progress, now - self._started)
        self._progress.update(
            self._task,
            description="scoring",
            completed=progress.finished + progress.failed,
            total=progress.pieces,
            details=text,
        )
        if not self._bar and now - self._said >= EVERY:
            self._said = now
            done = progress.finished + progress.failed
            typer.echo(f"scored {done:,} of {progress.pieces:,} pieces, {text}", err=True)


def details(progress: run.Progress, seconds: float) -> str:
    """Rate, time that is left, loss so far, and failures, as one line.

    ``seconds`` is how long the run took; its rate is that of the pieces that it computed itself.
    """
    parts = []
    if progress.computed and seconds > 0:
        left = progress.pieces - progress.finished - progress.failed
        eta = left * seconds / progress.computed
        parts.append(f"{decimal(int(progress.bytes / seconds))}/s")
        parts.append(f"{duration(eta)} left")
    if not math.isnan(progress.loss):
        parts.append(f"loss so far {progress.loss:.6g}")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """A time of some days, as ``1 d 02:03:04`` or ``02:03:04``."""
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    text = f"{hours:02}:{rest // 60:02}:{rest % 60:02}"
    return f"{days} d {text}" if days else text


@contextmanager
def shown() -> Iterator[Shown]:
    """Show progress on stderr while the block runs."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[details]}"),
    )
    terminal = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not terminal) as progress:
        yield Shown(progress, terminal)
