"""Device, versions, speeds of copies and seconds to compile: ``python -m benchmarks.cuda.device``.

The CPU kernels, which later parts compare with, and the CUDA kernels are compiled meanwhile, in a
process each.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.cuda.figures import put
from kernels.devices import why_no_gpu

_PACKAGES = (
    "numpy", "numba", "numba-cuda", "llvmlite", "cuda-bindings", "torch", "triton", "liger-kernel",
    "pytest", "pytest-xdist", "hypothesis", "ml-dtypes", "fastapi", "uvicorn",
)  # fmt: skip
_ROUNDS = 20
_CPU = "from kernels import warm; warm.compile_common()"
_GPU = "from kernels import devices; devices.prepare()"


def installed() -> dict[str, str]:
    """Versions of Python and of the packages that matter; "-" for what is missing."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "-"
    return found


def _properties() -> dict[str, Any]:
    from numba import cuda

    from kernels.cuda.kinds import SIMULATED

    device = cuda.get_current_device()
    free, total = cuda.current_context().get_memory_info()
    name = device.name if not SIMULATED else "simulator"
    found = {"name": name.decode() if isinstance(name, bytes) else name}
    found |= {"capability": list(device.compute_capability), "free": free, "total": total}
    for attribute in ("MULTIPROCESSOR_COUNT", "L2_CACHE_SIZE", "ASYNC_ENGINE_COUNT"):
        found[attribute.lower()] = getattr(device, attribute, None)
    return found


class _Timed:
    """Process that runs Python code; ``seconds`` waits for it."""

    def __init__(self, code: str) -> None:
        told = (
            f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", told], stdout=subprocess.PIPE, text=True
        )

    def seconds(self) -> float | None:
        """Seconds that the code took, imports included; None where it failed."""
        out, _ = self._process.communicate()
        return float(out) if self._process.returncode == 0 else None


def main() -> int:
    """0 where there is a GPU, and both targets' kernels are compiled and right."""
    put("versions", installed())
    put("machine", f"{platform.platform()}, {platform.processor() or platform.machine()}")
    why = why_no_gpu()
    put("why no gpu", why)
    if why is not None:
        return 1
    put("device", _properties())
    subprocess.run(["sh", "-c", "nvidia-smi; lscpu | head -20; free -g"], check=False)
    sys.stdout.flush()
    started = time.perf_counter()
    compiling = {name: _Timed(code) for name, code in (("cpu", _CPU), ("gpu", _GPU))}
    from benchmarks.cuda.clock import Clock, transfers

    put("device to device, bytes per second", Clock().copied_per_second(_ROUNDS))
    put("transfers, bytes per second", transfers(_ROUNDS))
    seconds = {name: process.seconds() for name, process in compiling.items()}
    put("seconds to compile", seconds)
    print(f"all after {time.perf_counter() - started:.1f} s")
    return int(None in seconds.values())


if __name__ == "__main__":
    sys.exit(main())
