"""Choice of a device: asked for, fallen back from, refused; and nothing imported early."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernels
from benchmarks.__main__ import main
from kernels import devices, steps

X = np.array([[1, 2, 3], [0.5, -1, 2]], np.float32)
Y = np.array([2, 0])
WITHOUT_GPU = pytest.mark.skipif(devices.why_no_gpu() is None, reason="there is a GPU here")
Function = Callable[[Any], Any]
FUNCTIONS: tuple[Function, ...] = (
    lambda device: kernels.cross_entropy(X, Y, device=device),
    lambda device: kernels.nll_loss(X, Y, device=device),
    lambda device: kernels.log_softmax(X, device=device),
    lambda device: kernels.softmax(X, device=device),
    lambda device: steps.cross_entropy(X, Y, outputs=["loss"], device=device).run()["loss"],
)


@WITHOUT_GPU
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_gpu_that_is_not_there_is_said(function: Function) -> None:
    with pytest.raises(kernels.DeviceUnavailable, match='device="cuda"'):
        function("cuda")
    assert function("auto").tobytes() == function("cpu").tobytes()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_another_device_is_refused(function: Function) -> None:
    for device in ("tpu", "cuda:1", None, 0):
        with pytest.raises(kernels.InvalidInput) as caught:
            function(device)
        assert caught.value.field == "device"


@WITHOUT_GPU
def test_what_is_missing_is_one_line() -> None:
    assert devices.why_no_gpu() is not None
    assert "\n" not in str(devices.why_no_gpu())


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    devices.why_no_gpu.cache_clear()
    try:
        with pytest.raises(
            kernels.DeviceUnavailable, match=r"pip install .\.\[cuda\]. in a checkout"
        ):
            kernels.cross_entropy(X, Y, device="cuda")
    finally:
        devices.why_no_gpu.cache_clear()


@WITHOUT_GPU
def test_the_benchmark_says_that_there_is_no_gpu() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["cuda"])
    assert str(caught.value.code).startswith("no GPU to measure on: ")


@pytest.mark.parametrize(
    "does",
    [
        "import kernels; kernels.cross_entropy(numpy.zeros((2, 3), 'f'), numpy.zeros(2, int))",
        "import service.app; service.app.create_app()",
        "import service.cli",
    ],
    ids=["kernels", "service.app", "service.cli"],
)
def test_nothing_of_cuda_is_imported_unasked(does: str) -> None:
    """But for what the packages' own .pth files import in every process of this environment."""
    shown = "print([name for name in sys.modules if 'cuda' in name.lower()])"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", f"import sys, numpy, numba; {code}{shown}"],
            cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=True,
        ).stdout
        for code in ("", f"{does}; ")
    ]  # fmt: skip
    assert outputs[0] == outputs[1]
