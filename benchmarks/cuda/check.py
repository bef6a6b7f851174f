"""Check of the CUDA kernels on a GPU, part by part: ``python -m benchmarks.cuda.check``.

Each part is a process group with a log, ``<part>.log`` in the folder $OUT, and a time limit, so
that one which hangs, fails or dies costs the others nothing. ``figures.json`` there is written
anew twice a second. Nothing but the standard library is needed here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cuda import figures

_ROOT = Path(__file__).resolve().parents[2]
_WORKERS = 12  # processes of the suite, which spends most of its time compiling kernels
_SUITE = "tests.kernels.cuda.hardware"
_POLL = 0.5  # seconds between two looks at a part
_GRACE = 3.0  # seconds from SIGTERM to SIGKILL


class Part(NamedTuple):
    """Command for Python, and the seconds that it may take at least."""

    name: str
    seconds: float
    command: tuple[str, ...]


def parts() -> tuple[Part, ...]:
    """Parts in order: 525 seconds together, so that the check ends within nine minutes."""
    workers = str(min(_WORKERS, os.cpu_count() or 1))
    spread = ("-n", workers, "--dist", "loadgroup") if find_spec("xdist") else ()
    suite = ("-m", "pytest", "-q", "-W", "default", "-p", _SUITE, "-p", "no:cacheprovider")
    return (
        Part("device", 45, ("-m", "benchmarks.cuda.device")),
        Part("suite", 190, (*suite, *spread, "tests/kernels")),
        Part("sanitizer", 80, ("-m", "benchmarks.cuda.sanitizer")),
        Part("speed", 130, ("-m", "benchmarks", "cuda")),
        Part("service", 80, ("-m", "benchmarks.cuda.service")),
    )


class Result(NamedTuple):
    """Outcome of a part: ``status`` is "ok" or the reason that it is not."""

    status: str
    seconds: float
    limit: float
    figures: dict[str, Any]


def run(all_parts: Sequence[Part], out: Path) -> dict[str, Result]:
    """Run ``all_parts``, one after another, and return their results by name.

    The time that a part leaves over is the next one's.
    """
    end = time.monotonic() + sum(part.seconds for part in all_parts)
    results: dict[str, Result] = {}
    for at, part in enumerate(all_parts):
        later = sum(after.seconds for after in all_parts[at + 1 :])
        limit = max(end - time.monotonic() - later, 1.0)
        for result in _watched(part, limit, out):
            results[part.name] = result
            _write(results, out)
        result = results[part.name]
        print(f"{part.name:<10} {result.status:<24} {result.seconds:6.1f} s", flush=True)
    return results


def _watched(part: Part, limit: float, out: Path) -> Generator[Result, None, None]:
    """Run ``part`` for ``limit`` seconds at most; yields its ``Result`` so far, every _POLL."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, (out / f"{part.name}.log").open("wb") as log:
        path = Path(folder) / "figures"
        process = subprocess.Popen(
            [sys.executable, *part.command],
            cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, figures.VARIABLE: str(path)}, start_new_session=True,
        )  # fmt: skip
        status = None
        try:
            while status is None:
                try:
                    left = limit - (time.monotonic() - start)
                    code = process.wait(max(0.0, min(_POLL, left)))
                    status = "ok" if code == 0 else f"failed: status {code}"
                except subprocess.TimeoutExpired:
                    if left <= 0:
                        status = "out of time"
                took = time.monotonic() - start
                yield Result(status or "running", took, limit, figures.collected(path))
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group: the part, and the processes that it started."""
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        if process.poll() is not None and number == signal.SIGTERM:
            time.sleep(0.2)  # others of the group, before they are killed


def _write(results: dict[str, Result], out: Path) -> None:
    """Write ``figures.json`` by renaming, so that a reader always finds a whole file."""
    text = json.dumps({name: result._asdict() for name, result in results.items()}, indent=1)
    path = out / "figures.json"
    new = path.with_suffix(".new")
    new.write_text(text + "\n")
    new.replace(path)


def main(names: Sequence[str]) -> int:
    """Run the parts ``names``, or all where there are none; 0 where each is "ok"."""
    known = parts()
    if unknown := set(names) - {part.name for part in known}:
        print(f"no such part: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    out = Path(os.environ.get("OUT") or _ROOT / "build" / "cuda").resolve()
    out.mkdir(parents=True, exist_ok=True)
    print(f"results go to {out}", flush=True)
    results = run([part for part in known if not names or part.name in names], out)
    return int(any(result.status != "ok" for result in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
