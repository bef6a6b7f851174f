"""What a kernel door may raise: ``InvalidInput``, the caller's fault; the rest is the device's."""

from __future__ import annotations


class InvalidInput(ValueError):
    """The caller's tensors or options do not make a loss.

    ``message`` says what was wrong and what would be right; ``field`` is the argument at fault
    (``"labels"``, ``"weight"``, ...), and ``position`` the index of the first offending element,
    where one element is to blame.
    """

    def __init__(
        self, message: str, *, field: str, position: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.position = position


class DeviceError(RuntimeError):
    """A GPU cannot do what was asked for; ``message`` says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class DeviceUnavailable(DeviceError):
    """CUDA was asked for, and there is no usable GPU, driver or ``numba-cuda``: the text says."""

    field = "device"


class DeviceOutOfMemory(DeviceError):
    """The device, or the budget of its memory, has too little left; nothing is held any more."""


class DeviceFailed(DeviceError):
    """The GPU stopped in a way that leaves it of no use to this process, which has to be replaced.

    An illegal address does that, or memory that cannot be corrected: CUDA answers every later call
    with the same error.
    """
