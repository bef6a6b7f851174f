"""The CUDA kernels' PTX and machine code, made without a GPU: no spills, whole vectors, and no
float64 where float32 will do. ``python -m benchmarks cuda-table`` prints all of it;
LOSSD_COMPILE=all holds all of it, in some minutes.
"""

from __future__ import annotations

import os
import re
from typing import Any, cast

import numpy as np
import pytest
from numba import types

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("cuda.bindings.nvjitlink", reason="NVIDIA's compilers are not installed")

from numba.cuda.np.numpy_support import from_dtype
from numba.cuda.typing.typeof import typeof

from benchmarks.cuda import ptx
from benchmarks.cuda.compiled import CAPABILITIES, Case, cases, compiled
from benchmarks.cuda.table import summary
from kernels import dtypes
from kernels.cuda.kinds import SIMULATED
from kernels.cuda.launch.tensors import device_options, operands_of, wanted_of
from kernels.plan import View
from kernels.problem import check
from tests import zoo

pytestmark = pytest.mark.skipif(SIMULATED, reason="the simulator compiles nothing")
EVERYTHING = os.environ.get("LOSSD_COMPILE") == "all"
ALL = [case for dtype in dtypes.FLOATS for case in cases(dtype)]
# Where a row's, or a position's, logits are read once and added up.
SUMS = ("rows", "planes")


def is_held(case: Case, capability: tuple[int, int]) -> bool:
    """Kernels of a loss of float32 for one capability; what most requests take for each type of
    logits, and for each capability; and the largest.
    """
    one, float32, loss = capability == (9, 0), case.logits == "float32", case.options == "loss"
    often = case.name in ("rows, 256 threads each", "planes") and loss
    largest = case[:3] == ("careful", "float32", "all")
    few = one and float32 and (loss or largest)
    return EVERYTHING or few or (often and (one or float32))


HELD = [
    (case, capability) for capability in CAPABILITIES for case in ALL if is_held(case, capability)
]


@pytest.mark.parametrize(
    ("case", "capability"), HELD, ids=lambda value: "-".join(map(str, value[:3]))
)
def test_machine_code(case: Case, capability: tuple[int, int]) -> None:
    code = compiled(case, capability)
    assert (code.spilled, code.stack) == (0, 0), "registers are spilled to memory"
    often = case.options == "loss" and case.name.startswith(SUMS) and case.logits != "float64"
    least = 0.6 if often else 0.12 if case.name == "careful" else 0.25
    assert code.occupancy >= least
    loops = ptx.loops(ptx.body(code.ptx))
    reading = [loop for loop in loops if any("ld.global" in line for line in loop)]
    if case.name.startswith(SUMS):
        assert any("ex2.approx" in line for loop in reading for line in loop) or (
            case.logits == "float64"
        )
    if case.logits != "float64" and case.name.startswith((*SUMS, "per class")):
        assert reading
        assert not [line for loop in reading for line in loop if ".f64" in line]
    # Rows of up to 256 classes are read by neighbouring lanes, an element each.
    if case.name.startswith(("rows, 32", "rows, 128", "rows, 256")):
        whole = re.compile(r"ld\.global\.nc\.(v4\.\w32|v2\.\w64) ")
        assert any(whole.match(line) for loop in reading for line in loop)


class Pretended:
    """Stand-in for an array on a device that is not there: it has a type, and no memory."""

    size = 1

    def __init__(self, dtype: Any, axes: int = 1) -> None:
        self._dtype = dtype
        self._numba_type_ = types.Array(from_dtype(np.dtype(dtype)), axes, "C")

    def reshape(self, *sizes: int) -> Pretended:
        return Pretended(self._dtype, len(sizes))


@pytest.mark.parametrize("everything", [False, True], ids=["loss", "all"])
@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda dtype: dtype.name)
def test_what_is_compiled_is_what_is_launched(dtype: dtypes.DType, everything: bool) -> None:
    logits = np.zeros((2, 9000), dtype.numpy)
    options: dict[str, Any] = {"softcap": 3.0, "weight": np.ones(9000)} if everything else {}
    problem = check(logits, logits if everything else np.zeros(2, int), **options)
    names = zoo.outputs(soft=True) if everything else ["loss"]
    wanted = wanted_of(problem, tuple(names), True)
    own = {name: Pretended(tensor.dtype) for name, tensor in wanted.tensors.items()}
    own |= {"losses": Pretended("f8"), "weights": Pretended("f8"), "status": Pretended("i8")}

    def nothing(dtype: Any, rows: int = 0) -> Any:
        return Pretended(dtype, 2 if rows else 1)

    constants = device_options(problem, tuple(names), 1.0, lambda array: Pretended(array.dtype))
    told = operands_of(
        problem, constants, own, cast(Any, nothing), lambda name, data: View(data, *[1] * 6)
    )
    *launched, likeliest = map(typeof, told)
    signatures = {
        case.name: case.signature
        for case in ALL
        if case[1:3] == (dtype.name, "all" if everything else "loss")
    }
    assert tuple(launched) == signatures["careful"]
    assert likeliest == (signatures["likeliest"][-1] if everything else types.none)


def test_a_row_of_the_table() -> None:
    case = next(case for case in ALL if case.name == "nll")
    code = compiled(case, (8, 0))
    assert summary(code) == f"{code.registers} / 0 / {code.occupancy:.0%}"
