"""Device that computes: the one that settings and requests ask for, if it is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from kernels import DeviceFailed, DeviceUnavailable, devices
from kernels.steps import Steps, Work
from service.codecs.base import Arrays
from service.options import Options
from service.settings import Settings, SettingsError

# Function of ``kernels.steps``, given its arguments by name: tensors, options, ``device`` ("cpu" or
# "cuda") and ``step``.
Compute: TypeAlias = Callable[[dict[str, Any]], Work]

_log = logging.getLogger("uvicorn.lossd")


@dataclass(slots=True)
class Device:
    """Device of this process: ``name`` is "cpu" or "cuda".

    ``why_no_gpu`` says what keeps it from the GPU, if anything does; ``may_fall_back``, whether the
    CPU will do where the GPU cannot be made ready. ``failed`` is called, in the thread that
    computes, where the GPU is of no use to this process any more.
    """

    name: str = "cpu"
    why_no_gpu: str | None = "the server was started for the CPU"
    may_fall_back: bool = False
    failed: Callable[[DeviceFailed], None] = lambda error: None

    def prepare(self, settings: Settings) -> None:
        """Have the GPU's kernels compiled and checked, where it is what computes.

        Raises what they raise, unless the CPU will do.
        """
        if self.name == "cpu":
            return
        try:
            devices.prepare(settings.device_memory_bytes, settings.workers)
        except Exception as error:
            if not self.may_fall_back:
                raise
            _log.warning("the GPU cannot be made ready", exc_info=True)
            self._fall_back(f"it could not be made ready ({type(error).__name__}: see the log)")
        else:
            _log.info("computing on the GPU")

    def work(self, compute: Compute, tensors: Arrays, options: Options, step: int | None) -> Work:
        """Call ``compute`` of all these, for the device that ``options`` ask for.

        Raises as ``named``.
        """
        device = self.named(options)
        work = compute({**tensors, **vars(options), "device": device, "step": step})
        return work if device == "cpu" else work._replace(steps=self._watched(work.steps))

    def named(self, options: Options) -> str:
        """Name the device that ``options`` ask for: this one where they leave it open.

        Raises ``DeviceUnavailable`` for a GPU where this is none.
        """
        if options.device == "cuda" and self.name != "cuda":
            raise DeviceUnavailable(
                f"device is cuda, but this server computes on the CPU: {self.why_no_gpu}"
            )
        return self.name if options.device == "auto" else options.device

    def _watched(self, steps: Steps) -> Steps:
        try:
            return (yield from steps)
        except DeviceFailed as error:
            self.failed(error)
            raise

    def _fall_back(self, why: str) -> None:
        self.name, self.why_no_gpu = "cpu", why
        _log.warning("computing on the CPU, not on a GPU: %s", why)


def chosen(settings: Settings) -> Device:
    """Choose the device that the settings ask for, or the CPU where "auto" finds no GPU.

    Raises ``SettingsError`` where "cuda" is asked for and cannot be. Nothing of CUDA is imported
    for "cpu".
    """
    if settings.device == "cpu":
        return Device()
    why = devices.why_no_gpu()
    if why is not None and settings.device == "cuda":
        raise SettingsError(f"LOSSD_DEVICE is cuda: {why}; auto or cpu would do without a GPU")
    device = Device("cuda", None, may_fall_back=settings.device == "auto")
    if why is not None:
        device._fall_back(why)
    return device
