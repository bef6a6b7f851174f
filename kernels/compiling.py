"""Compilation in child processes: Numba holds the GIL and a lock of its own while it compiles.

A child reads jobs, a line of JSON each, and writes for each job a line of JSON with the names and
sizes of the compiled code, then the code: it needs no disk. Its parent keeps the code in the cache.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from queue import SimpleQueue
from typing import IO, Any, NamedTuple, TypeAlias

from kernels.cache import HANDED_OVER, LISTENERS, NotCached, loading_only

_log = logging.getLogger(__name__)
# Seconds between two lines of progress in the log, and between two calls of a ``Told``.
PROGRESS = 10.0
_TICK = 1.0
# Callback for progress: how many kernels are done, and how many there are in all.
Told: TypeAlias = Callable[[int, int], object]


class ChildFailed(RuntimeError):
    """A child process could not be started, or ended before its job was done."""


class Job(NamedTuple):
    """A call that compiles: ``function`` of ``module`` with ``arguments``; ``name`` is for logs.

    The function runs what it compiles once, since only that loads all of it.
    """

    name: str
    module: str
    function: str
    arguments: tuple[Any, ...] = ()

    def run(self) -> None:
        """Compile in this process, unless all is compiled."""
        getattr(import_module(self.module), self.function)(*self.arguments)

    def load(self) -> bool:
        """Load all that it compiles; return False if some of it is in no cache."""
        try:
            with loading_only():
                self.run()
        except NotCached:
            return False
        return True


class Child:
    """A process that compiles, one job at a time; ``patient``: at the lowest priority."""

    def __init__(self, *, patient: bool = False) -> None:
        command = [sys.executable, "-P", "-m", __name__, *(["--patient"] if patient else [])]
        try:
            # A group of its own: a terminal's Ctrl-C is for the server, which then ends it.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
            )
        except OSError as error:
            raise ChildFailed(f"no process to compile in can be started: {error}") from error

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def compile_job(self, job: Job) -> None:
        """Compile ``job`` in the child, and take over the code. Raises ``ChildFailed``."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(job).encode() + b"\n")
            stdin.flush()
            HANDED_OVER.update(_received(stdout))
        except (OSError, ValueError, EOFError) as error:
            self._process.kill()
            status = self._process.wait()
            raise ChildFailed(f"the process that compiled ended, status {status}") from error

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _received(stdout: IO[bytes]) -> dict[str, bytes]:
    sizes: dict[str, int] | str = json.loads(stdout.readline())
    if isinstance(sizes, str):
        raise ChildFailed(sizes)
    code = {name: stdout.read(size) for name, size in sizes.items()}
    if any(len(part) < sizes[name] for name, part in code.items()):
        raise EOFError
    return code


def compile_all(jobs: Sequence[Job], children: int, told: Told | None = None) -> None:
    """Compile ``jobs`` in up to ``children`` processes, and load them here.

    ``told`` is called with the progress every second; it is logged every 10 s without. Where a
    child fails, the rest is compiled in this process.
    """
    if not jobs:
        return
    children = max(1, min(children, len(jobs)))
    _log.info("compiling %d kernels in %d processes", len(jobs), children)
    waiting, failed = list(reversed(jobs)), threading.Event()
    progress = Progress(len(jobs), told)

    def work() -> None:
        try:
            with Child() as child:
                while waiting and not failed.is_set():
                    with suppress(IndexError):  # the other thread took the last one
                        job = waiting.pop()
                        child.compile_job(job)
                        progress.done()
        except ChildFailed as error:
            failed.set()
            _log.warning("%s: compiling in this process", error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(children)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_TICK)
            progress.tell()
    for job in jobs:
        job.run()
    HANDED_OVER.clear()


class Progress:
    """Count of compiled kernels, which is passed to ``told``, or else logged every 10 s."""

    def __init__(
        self, total: int, told: Told | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._told, self._clock = total, told, clock
        self._started = self._logged = clock()
        self._lock, self._count = threading.Lock(), 0

    def done(self) -> None:
        """Count one more; may be called in any thread."""
        with self._lock:
            self._count += 1

    def tell(self) -> None:
        """Tell how many are done, where it is time for that."""
        now = self._clock()
        if self._told is not None:
            self._told(self._count, self._total)
        elif now - self._logged >= PROGRESS:
            self._logged = now
            _log.info(
                "compiled %d of %d kernels after %.0f s",
                self._count,
                self._total,
                now - self._started,
            )


def collect_seldom() -> None:
    """Have garbage collected less often: an eighth of the time of compiling, for 30 MB more."""
    gc.set_threshold(100_000)


def _read(lines: SimpleQueue[str]) -> None:
    """Pass on the parent's lines; end this process when the parent has gone, even in mid-job."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def main(arguments: Sequence[str]) -> None:
    """Do the jobs from the standard input, until it ends."""
    logging.disable()  # The parent logs about the cache.
    collect_seldom()
    if "--patient" in arguments and hasattr(os, "nice"):
        os.nice(10)
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    # Printed text goes to the standard error: it must not get between the lines of the protocol.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        while True:
            line = lines.get()
            name, module, function, given = json.loads(line)
            made: dict[str, bytes] = {}
            LISTENERS[:] = [made.__setitem__]
            answer: dict[str, int] | str
            try:
                Job(name, module, function, tuple(given)).run()
                answer = {name: len(code) for name, code in made.items()}
            except Exception as error:  # Numba and LLVM raise many classes
                answer = f"{name} could not be compiled: {type(error).__name__}: {error}"
                made.clear()
            out.write(json.dumps(answer).encode() + b"\n")
            for code in made.values():
                out.write(code)
            out.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
