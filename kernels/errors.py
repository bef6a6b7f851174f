"""Errors of the public functions: ``InvalidInput`` is the caller's fault, the others a GPU's."""

from __future__ import annotations


class InvalidInput(ValueError):
    """Tensors or options do not make a loss.

    ``message`` says what was wrong and what would be right; ``field`` is the argument at fault
    (``"labels"``, ``"weight"``, ...), and ``position`` the index of the first wrong element, where
    one element is at fault.
    """

    def __init__(
        self, message: str, *, field: str, position: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.position = position


class DeviceError(RuntimeError):
    """A GPU cannot compute a loss; ``message`` says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class DeviceUnavailable(DeviceError):
    """No usable GPU, driver or ``numba-cuda`` for ``device="cuda"``; ``message`` says which."""

    field = "device"


class DeviceOutOfMemory(DeviceError):
    """Device memory, or the budget of it, is too small; the call holds none any more."""


class DeviceFailed(DeviceError):
    """GPU failure after which this process cannot use the GPU: it has to be replaced.

    Causes are an illegal address or an uncorrectable memory error: CUDA then fails every later call
    with the same error.
    """
