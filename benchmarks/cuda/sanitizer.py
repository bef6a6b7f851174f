"""Memory and race checks of every kernel: ``python -m benchmarks.cuda.sanitizer``.

compute-sanitizer runs the same module with ``--cases``, which computes a small case of each kernel.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import numpy as np

from benchmarks.cuda.figures import VARIABLE, put
from kernels.devices import why_no_gpu
from kernels.plan import TABLE

TOOLS = ("memcheck", "racecheck")
# The factories of all kernels, by the names that the modules which launch them have them under.
KERNELS = {
    "binary_kernel", "block_kernel", "blocks_kernel", "careful_kernel", "divergence_kernel",
    "lanes_kernel", "likeliest_kernel", "merge_kernel", "nll_kernel", "per_class_kernel",
    "plane_kernel",
}  # fmt: skip
_FOUND = 9  # the status for errors that a tool finds
_SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (.+)")


def cases() -> set[str]:
    """Compute a case of each kernel; returns the names of the kernels that were launched.

    Their values are tested by the suite; CPU kernels for these options take long to compile.
    """
    from kernels.cuda.kinds import TABLE

    with _noted() as launched:
        _compute(TABLE)
    return launched


def _compute(table: Any) -> None:
    """Compute losses that take all kernels, for the launch table ``table``."""
    import kernels

    rng = np.random.default_rng(0)
    widths = [min(row.classes, table.segment) for row in table.rows]
    shapes: list[tuple[int, ...]] = [(3, classes - 1) for classes in (*widths, table.segment + 3)]
    shapes += [(2, 5, 3), (2, table.plane_segment + 3, 2)]
    everything: dict[str, Any] = {"label_smoothing": 0.1, "softcap": 9.0, "z_loss": 0.1}
    rows = ((name, TABLE[name]) for name in kernels.OUTPUTS)
    outputs = [name for name, row in rows if row.soft and row.requires is None]
    for shape in shapes:
        logits = rng.normal(0, 3, shape).astype(np.float32)
        logits[0, 0] = np.nan  # for ``careful``
        labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
        soft = np.moveaxis(rng.dirichlet(np.ones(shape[1]), labels.shape), -1, 1)
        for given, names, options in (
            (labels, ["loss", "per_element"], {}),
            (soft.astype(np.float32), outputs, everything),
        ):
            got = kernels.cross_entropy(logits, given, outputs=names, device="cuda", **options)
            assert np.isfinite(got["per_element"][1:]).all()
    log_probs = kernels.log_softmax(np.ones((70, 5), np.float32), device="cuda")
    kernels.nll_loss(log_probs, np.zeros(70, int), device="cuda")
    few = rng.normal(0, 3, (4, 7)).astype(np.float32)
    labels = (few > 0).astype(np.int64)
    kernels.binary_cross_entropy(few, labels, outputs=["loss", "gradient"], device="cuda")
    of_each, chosen = ["margin", "top_log_probs", "top_classes", "chosen_log_probs"], [0, 6]
    kernels.cross_entropy(
        few, np.zeros(4, int), outputs=of_each, top_k=3, chosen=chosen, device="cuda"
    )
    top = {"target_classes": np.tile([5, 2], (4, 1)), "target_top_log_probs": np.full((4, 2), -1.5)}
    for teacher in ({"target_logits": few[::-1].copy()}, top):
        kernels.kl_div(few, **teacher, outputs=["loss", "gradient", "same_top"], device="cuda")
    halves = np.ones((3, widths[-1]), np.float16)
    kernels.cross_entropy(halves, np.zeros(3, int), device="cuda")


@contextmanager
def _noted() -> Iterator[set[str]]:
    """Names of the kernels that are launched within the context, as a set that grows."""
    from kernels.cuda.launch import divergence, loss, queue

    launched: set[str] = set()

    def noting(name: str, factory: Any) -> Any:
        def noted(*arguments: Any) -> Any:
            launched.add(name)
            return factory(*arguments)

        return noted

    with ExitStack() as patches:
        for module in (divergence, loss, queue):
            for name in KERNELS & vars(module).keys():
                noted = noting(name, vars(module)[name])
                patches.enter_context(patch.object(module, name, noted))
        yield launched


def _sanitizer() -> str | None:
    """Path of compute-sanitizer, or None."""
    places = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/local/cuda/bin"
    return shutil.which("compute-sanitizer", path=places)


def _started(tool: str, log: IO[str]) -> subprocess.Popen[bytes]:
    command = [str(_sanitizer()), "--tool", tool, "--error-exitcode", str(_FOUND)]
    if tool == "memcheck":  # Numba raises what the driver answers, and tries out what it may
        command += ["--report-api-errors", "no"]
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.Popen(
        [*command, sys.executable, "-m", __spec__.name, "--cases"],
        stdout=log, stderr=subprocess.STDOUT, env=environment,
    )  # fmt: skip


def main() -> int:
    """Run both tools at once; returns 0 where neither finds an error, or the tool is missing."""
    why = why_no_gpu()
    if why is not None:
        put("why no gpu", why)
        return 1
    if _sanitizer() is None:
        put("compute-sanitizer", "not installed: the cases were computed without it")
        put("kernels", sorted(cases()))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        logs = {tool: Path(folder) / tool for tool in TOOLS}
        running = {tool: _started(tool, path.open("w")) for tool, path in logs.items()}
        statuses = {tool: process.wait() for tool, process in running.items()}
        for tool, status in statuses.items():
            text = logs[tool].read_text(errors="replace")
            print(f"==== {tool}: status {status}\n{text[:20000]}", flush=True)
            put(tool, {"status": status, "summary": _SUMMARY.findall(text)})
    return int(any(statuses.values()))


if __name__ == "__main__":
    if "--cases" in sys.argv[1:]:
        print("kernels launched:", *sorted(cases()))
        sys.exit(0)
    sys.exit(main())
