"""The CUDA kernels' PTX and machine code, made without a GPU: no spills, whole vectors, and no
float64 where float32 will do. ``python -m benchmarks cuda-table`` prints all of it;
LOSSD_COMPILE=all holds all of it, in some minutes.
"""

from __future__ import annotations

import os
import re

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("cuda.bindings.nvjitlink", reason="NVIDIA's compilers are not installed")

from benchmarks.cuda import ptx
from benchmarks.cuda.compiled import CAPABILITIES, Case, cases, compiled
from benchmarks.cuda.table import summary
from kernels import dtypes
from kernels.cuda.kinds import SIMULATED

pytestmark = pytest.mark.skipif(SIMULATED, reason="the simulator compiles nothing")
EVERYTHING = os.environ.get("LOSSD_COMPILE") == "all"
ALL = [case for dtype in dtypes.FLOATS for case in cases(dtype)]
# Where a row's, or a position's, logits are read once and added up.
SUMS = ("rows", "planes")


def is_held(case: Case, capability: tuple[int, int]) -> bool:
    """All kernels for float32 and one capability; what most requests take for all of them."""
    often = case.name in ("rows, 256 threads each", "planes") and case.options == "loss"
    return EVERYTHING or often or (capability == (9, 0) and case.logits == "float32")


HELD = [
    (case, capability) for capability in CAPABILITIES for case in ALL if is_held(case, capability)
]


@pytest.mark.parametrize(
    ("case", "capability"), HELD, ids=lambda value: "-".join(map(str, value[:3]))
)
def test_machine_code(case: Case, capability: tuple[int, int]) -> None:
    code = compiled(case, capability)
    assert (code.spilled, code.stack) == (0, 0), "registers are spilled to memory"
    assert code.occupancy >= (0.6 if case.options == "loss" and case.name in SUMS else 0.25)
    loops = ptx.loops(ptx.body(code.ptx))
    reading = [loop for loop in loops if any("ld.global" in line for line in loop)]
    if case.name.startswith(SUMS):
        assert any("ex2.approx" in line for loop in reading for line in loop) or (
            case.logits == "float64"
        )
    if case.logits != "float64" and case.name.startswith((*SUMS, "per class")):
        assert reading
        assert not [line for loop in reading for line in loop if ".f64" in line]
    if case.name.startswith("rows") and "4 lanes" not in case.name:
        whole = re.compile(r"ld\.global\.nc\.(v4\.\w32|v2\.\w64) ")
        assert any(whole.match(line) for loop in reading for line in loop)


def test_a_row_of_the_table() -> None:
    case = next(case for case in ALL if case.name == "nll")
    code = compiled(case, (8, 0))
    assert summary(code) == f"{code.registers} / 0 / {code.occupancy:.0%}"
