"""The kernels' tests once more, on Numba's CUDA simulator (``simulator.py``)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

from tests.kernels.cuda import simulator

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "tests" / "kernels"


@pytest.mark.slow
def test_the_kernel_suite_on_the_simulator() -> None:
    files = [str(FOLDER / f"{name}.py") for name in (*simulator.WHOLE, *simulator.SAMPLED)]
    files += [str(FOLDER / "cuda" / f"{name}.py") for name in simulator.OWN]
    plugin = ["-p", "tests.kernels.cuda.simulator", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, *files],
        cwd=ROOT, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    calls = re.search(r"(\d+) calls on the simulated device", done.stdout)
    assert calls is not None
    assert int(calls[1]) > 1200


def test_every_file_is_run_or_its_reason_given() -> None:
    files = {path.stem for path in FOLDER.glob("test_*.py")}
    assert files == {*simulator.WHOLE, *simulator.SAMPLED, *simulator.NOT_RUN}


@pytest.mark.parametrize("name", [*simulator.LEFT_OUT, *simulator.NOT_RUN])
def test_contributing_lists_what_is_left_out(name: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    reason = (simulator.LEFT_OUT | simulator.NOT_RUN)[name]
    assert any(f"`{name}`" in line and reason in line for line in text.splitlines())
