"""Errors of the CUDA driver as ``kernels.errors``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from numba.cuda.cudadrv.driver import CudaAPIError

from kernels.errors import DeviceFailed, DeviceOutOfMemory

OUT_OF_MEMORY = 2
# Results (CUresult in the driver's manual) after which a process can only be "terminated and
# relaunched", or has lost the device: no later call succeeds.
STICKY = {
    46: "CUDA_ERROR_DEVICE_UNAVAILABLE",
    214: "CUDA_ERROR_ECC_UNCORRECTABLE",
    220: "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    226: "CUDA_ERROR_CONTAINED",
    700: "CUDA_ERROR_ILLEGAL_ADDRESS",
    702: "CUDA_ERROR_LAUNCH_TIMEOUT",
    709: "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    710: "CUDA_ERROR_ASSERT",
    714: "CUDA_ERROR_HARDWARE_STACK_ERROR",
    715: "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    716: "CUDA_ERROR_MISALIGNED_ADDRESS",
    717: "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    718: "CUDA_ERROR_INVALID_PC",
    719: "CUDA_ERROR_LAUNCH_FAILED",
    810: "CUDA_ERROR_MPS_CLIENT_TERMINATED",
    911: "CUDA_ERROR_EXTERNAL_DEVICE",
    999: "CUDA_ERROR_UNKNOWN",
}


@contextlib.contextmanager
def named() -> Iterator[None]:
    """Raise ``DeviceOutOfMemory`` and ``DeviceFailed`` in place of the driver's errors."""
    try:
        yield
    except CudaAPIError as error:
        code = int(error.code)
        if code == OUT_OF_MEMORY:
            raise DeviceOutOfMemory("the device has not as much memory left as it needs") from error
        if code in STICKY:
            raise DeviceFailed(f"the GPU stopped with {STICKY[code]}") from error
        raise
