"""Kill -9 of the client and of its workers at random moments: no piece is counted twice or lost.

``python -m benchmarks.scale.kills FOLDER``: scores shards with a journal, kills a process at a
random moment, goes on until the end, and compares what is printed with that of an undisturbed run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from service.codecs.npz import CODEC

KILLS, SHARDS, ROWS, CLASSES = 20, 48, 400, 500
CLIENT, WORKER = "client", "worker"


class Ended(NamedTuple):
    """Output of a run, its status, and its seconds from the beginning of its journal on."""

    stdout: str
    stderr: str
    status: int
    seconds: float


def command(shards: Sequence[str], journal: Path, *more: str) -> list[str]:
    """Command that scores ``shards``, a line of JSON on stdout."""
    kept = ["--json", "--journal", str(journal)]
    return [sys.executable, "-m", "service.cli", "score", *shards, *kept, *more]


def run(arguments: Sequence[str], journal: Path, victim: str = "", after: float = 0.0) -> Ended:
    """Run a command, and kill its ``victim`` some seconds after its journal was begun."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wal = journal.with_name(f"{journal.name}-wal")
    before = wal.stat().st_size if wal.exists() else -1
    while process.poll() is None and (not wal.exists() or wal.stat().st_size == before):
        time.sleep(0.001)
    begun = time.monotonic()
    while victim and process.poll() is None and time.monotonic() < begun + after:
        time.sleep(0.001)
    if victim:
        kill(process, victim)
    stdout, stderr = process.communicate()
    return Ended(stdout, stderr, process.returncode, time.monotonic() - begun)


def kill(process: subprocess.Popen[str], victim: str) -> None:
    """Kill a process, or one of its workers if it has any by now."""
    chosen = [process.pid] if victim == CLIENT else children(process.pid)
    if chosen and process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(chosen), signal.SIGKILL)


def children(process: int) -> list[int]:
    """Processes that a process started (Linux)."""
    found = []
    with contextlib.suppress(OSError):  # it may end meanwhile
        for task in Path(f"/proc/{process}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def held(journal: Path) -> int:
    """Number of pieces that a journal has; its database is checked. Raises ``ValueError``."""
    if not journal.exists():
        return 0
    with contextlib.closing(sqlite3.connect(journal)) as database:
        (sound,) = database.execute("PRAGMA integrity_check").fetchone()
        if sound != "ok":
            raise ValueError(f"{journal}: {sound}")
        try:
            (prefix,) = database.execute("SELECT coalesce(max(pieces), 0) FROM prefix").fetchone()
            (pieces,) = database.execute("SELECT count(*) FROM pieces").fetchone()
            (below,) = database.execute(
                "SELECT count(*) FROM pieces WHERE number < ?", (prefix,)
            ).fetchone()
        except sqlite3.OperationalError:  # killed before there was a table
            return 0
    if below:
        raise ValueError(f"{journal}: {below} pieces are in the total as well")
    return int(prefix + pieces)


def made(folder: Path) -> list[str]:
    """Paths of small shards in ``folder``."""
    generator = np.random.default_rng(7)
    paths = []
    for number in range(SHARDS):
        rows = ROWS + number
        logits = generator.standard_normal((rows, CLASSES), np.float32)
        labels = generator.integers(0, CLASSES, rows)
        path = folder / f"shard-{number}.npz"
        path.write_bytes(CODEC.encode({"logits": logits, "labels": labels}))
        paths.append(str(path))
    return paths


def main() -> int:
    """Kill, go on and compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    random.seed(given.seed)
    shards = made(given.folder)
    more = ["--workers", "2", "--piece-bytes", str(CLASSES * 4 * 5)]
    whole = run(command(shards, given.folder / "undisturbed", *more), given.folder / "undisturbed")
    print(f"undisturbed: status {whole.status}, {whole.seconds:.1f} s")
    wrong = int(whole.status != 0)
    for number in range(given.kills):
        journal = given.folder / f"journal-{number}"
        arguments = command(shards, journal, *more)
        victim = random.choice((CLIENT, WORKER))
        after = random.uniform(0.0, whole.seconds)
        killed = run(arguments, journal, victim, after)
        pieces = held(journal)
        ended = run(arguments, journal) if killed.status < 0 else killed
        same = ended.status == 0 and ended.stdout == whole.stdout
        wrong += not same
        print(
            f"{victim} killed after {after:.2f} s: status {killed.status}, {pieces} pieces kept,"
            f" then {'the same output' if same else 'ANOTHER OUTPUT'}"
        )
    print("all the same" if not wrong else f"{wrong} differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
