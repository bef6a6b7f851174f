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


class DeviceUnavailable(RuntimeError):
    """CUDA was asked for, and there is no usable GPU, driver or ``numba-cuda``: the text says."""


class DeviceOutOfMemory(RuntimeError):
    """The device, or the budget of its memory, has too little left; nothing is held any more."""
