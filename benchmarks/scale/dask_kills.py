"""Kill -9 of a Dask cluster's scheduler, of its workers and of the client, at random moments.

``python -m benchmarks.scale.dask_kills FOLDER``: as ``benchmarks.scale.kills``, on a cluster of
processes of this machine. A run whose scheduler was killed ends with status 4, and one whose client
was killed by the signal; either goes on, on another cluster if need be, to the same output.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.scale.kills import CLASSES, CLIENT, WORKER, children, command, held, made
from service.cli.bulk import LOST

KILLS, WORKERS = 20, 2
SCHEDULER = "scheduler"
# Seconds until a cluster is there, and pieces of a journal before a victim is chosen.
_PATIENCE, _BEGUN = 120.0, 16


class Cluster:
    """Scheduler and workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.file.unlink(missing_ok=True)
        where = ["--host", "127.0.0.1", "--scheduler-file", str(self.file)]
        self.scheduler = _dask(
            "scheduler", *where, "--port", "0", "--dashboard-address", "127.0.0.1:0"
        )
        deadline = time.monotonic() + _PATIENCE
        while not self.file.exists() or not self.file.read_text().endswith("}"):
            if time.monotonic() > deadline:
                raise RuntimeError("the scheduler does not start")
            time.sleep(0.05)
        options = ["--nworkers", str(WORKERS), "--nthreads", "1", "--memory-limit", "0"]
        self.workers = _dask(
            "worker", "--scheduler-file", str(self.file), *options, "--no-dashboard",
            "--local-directory", str(folder),
        )  # fmt: skip

    @property
    def address(self) -> str:
        return str(json.loads(self.file.read_text())["address"])

    def kill(self, victim: str) -> None:
        """Kill the scheduler, or a worker, which its nanny replaces."""
        if victim == SCHEDULER:
            self.scheduler.kill()
        elif found := children(self.workers.pid):
            os.kill(random.choice(found), signal.SIGKILL)

    def close(self) -> None:
        """End all processes."""
        for process in (self.workers, self.scheduler):
            for child in children(process.pid):
                os.kill(child, signal.SIGKILL)
            process.kill()
            process.wait()


def _dask(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def killed(arguments: list[str], journal: Path, victim: str, after: float, cluster: Cluster) -> int:
    """Status of a run whose ``victim`` is killed some seconds after its first pieces are kept."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wal = journal.with_name(f"{journal.name}-wal")
    while process.poll() is None and (not wal.exists() or wal.stat().st_size < _BEGUN * 16384):
        time.sleep(0.002)
    try:
        return process.wait(after)
    except subprocess.TimeoutExpired:
        pass
    if victim == CLIENT:
        process.kill()
    else:
        cluster.kill(victim)
    return process.wait()


def main() -> int:
    """Kill, go on and compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=float, default=2.0, help="seconds")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    random.seed(given.seed)
    shards = made(given.folder)
    size = ["--piece-bytes", str(CLASSES * 4 * 5)]
    whole = subprocess.run(
        command(shards, given.folder / "whole", *size, "--workers", "0"),
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    cluster, wrong = Cluster(given.folder), 0
    try:
        for number in range(given.kills):
            journal = given.folder / f"journal-{number}"
            victim = (SCHEDULER, WORKER, CLIENT)[number % 3]
            after = random.uniform(0.0, given.within)
            more = [*size, "--scheduler", cluster.address]
            status = killed(command(shards, journal, *more), journal, victim, after, cluster)
            pieces = held(journal)
            if cluster.scheduler.poll() is not None:
                cluster.close()
                cluster = Cluster(given.folder)
            more = [*size, "--scheduler", cluster.address]
            ended = subprocess.run(
                command(shards, journal, *more), capture_output=True, text=True, check=False
            )
            expected = status in (0, LOST if victim == SCHEDULER else 0, -signal.SIGKILL)
            same = expected and ended.returncode == 0 and ended.stdout == whole
            wrong += not same
            print(
                f"{victim} killed after {after:.2f} s: status {status}, {pieces} pieces kept, then"
                f" {'the same output' if same else 'ANOTHER: ' + ended.stderr[-300:]}",
                flush=True,
            )
    finally:
        cluster.close()
    print("all the same" if not wrong else f"{wrong} differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
